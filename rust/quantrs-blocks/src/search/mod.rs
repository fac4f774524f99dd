//! Scale searches that several formats share, each as plain code (`_ref`) and with one sub-block per lane.

mod minmax;
mod pos;

pub(crate) use minmax::{MinMax, MinMaxFit, minmax, minmax_ref};
pub(crate) use pos::pos_ref;
