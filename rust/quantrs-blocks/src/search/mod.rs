//! Scale searches that several formats share, each as plain code (`_ref`) and with one sub-block per lane.

mod iq4;
mod minmax;
mod pos;
mod q3iter;
mod sym;
#[cfg(test)]
mod tests;

pub(crate) use iq4::{VALUES as IQ4_VALUES, iq4, iq4_ref, nearest_level, nearest_level_ref};
pub(crate) use minmax::{MinMax, MinMaxFit, minmax, minmax_ref};
pub(crate) use pos::{pos, pos_ref};
pub(crate) use q3iter::{q3iter, q3iter_ref};
pub(crate) use sym::{EPS, SymFit, signed_max, sym, sym_ref};
