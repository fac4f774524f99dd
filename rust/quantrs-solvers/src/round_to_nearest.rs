//! Every weight to the nearest point of its group's grid.

use crate::grid::Grid;
use crate::lanes::{ROWS, byte, transpose};
use crate::{SolverError, check_finite};
use quantrs_simd::Level;
use rayon::prelude::*;

/// Codes with their scales and zero points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupCodes {
    /// `[out_features, in_features]`
    pub codes: Vec<u8>,
    /// `[out_features, n_groups]`
    pub scales: Vec<f32>,
    /// `[out_features, n_groups]`
    pub zeros: Vec<u8>,
}

impl GroupCodes {
    /// Room for `n_rows` rows.
    pub(crate) fn zeroed(n_rows: usize, in_features: usize, n_groups: usize) -> GroupCodes {
        GroupCodes {
            codes: vec![0; n_rows * in_features],
            scales: vec![0.0; n_rows * n_groups],
            zeros: vec![0; n_rows * n_groups],
        }
    }

    /// Scales are finite; else the first that is not.
    pub(crate) fn check_scales(&self, grid: &Grid, n_groups: usize) -> Result<(), SolverError> {
        match self.scales.iter().position(|s| !s.is_finite()) {
            None => Ok(()),
            Some(i) => Err(SolverError::ScaleOverflow {
                row: i / n_groups,
                group: i % n_groups,
                scale_type: grid.scale_type.name(),
            }),
        }
    }
}

/// A group size that divides `in_features`, and rows that do so with w.
pub(crate) fn check_shape(w: &[f32], in_features: usize, group_size: usize) -> Result<(), SolverError> {
    let wrong = |what, found: usize, expected| Err(SolverError::Argument { what, found: found.to_string(), expected });
    if in_features == 0 || !w.len().is_multiple_of(in_features) {
        return wrong("w", w.len(), format!("a multiple of in_features {in_features} values"));
    }
    if group_size == 0 || !in_features.is_multiple_of(group_size) {
        return wrong(
            "group_size",
            group_size,
            format!("a divisor of in_features {in_features}, or -1 for one group per row"),
        );
    }
    Ok(())
}

/// Round w: `[out_features, in_features]` in groups of `group_size` columns.
pub fn quantize_groups(
    level: Level,
    w: &[f32],
    in_features: usize,
    grid: &Grid,
    group_size: usize,
) -> Result<GroupCodes, SolverError> {
    grid.check()?;
    check_shape(w, in_features, group_size)?;
    check_finite("w", w, in_features)?;
    let n_groups = in_features / group_size;
    let mut out = GroupCodes::zeroed(w.len() / in_features, in_features, n_groups);
    out.codes
        .par_chunks_mut(ROWS * in_features)
        .zip(out.scales.par_chunks_mut(ROWS * n_groups))
        .zip(out.zeros.par_chunks_mut(ROWS * n_groups))
        .zip(w.par_chunks(ROWS * in_features))
        .for_each_init(
            || vec![[0.0; ROWS]; group_size],
            |columns, (((codes, scales), zeros), w)| {
                level.run(
                    #[inline(always)]
                    || round_rows(w, in_features, grid, columns, codes, scales, zeros),
                );
            },
        );
    out.check_scales(grid, n_groups)?;
    Ok(out)
}

/// Up to `ROWS` rows.
#[inline(always)]
fn round_rows(
    w: &[f32],
    in_features: usize,
    grid: &Grid,
    columns: &mut [[f32; ROWS]],
    codes: &mut [u8],
    scales: &mut [f32],
    zeros: &mut [u8],
) {
    let (group_size, n_rows) = (columns.len(), w.len() / in_features);
    let n_groups = in_features / group_size;
    for group in 0..n_groups {
        transpose(w, in_features, group * group_size, columns);
        let params = grid.params(columns);
        for r in 0..n_rows {
            scales[r * n_groups + group] = params.scale[r];
            zeros[r * n_groups + group] = byte(params.zero[r]);
        }
        for (i, column) in columns.iter().enumerate() {
            let code = grid.code(column, &params);
            for r in 0..n_rows {
                codes[r * in_features + group * group_size + i] = byte(code[r]);
            }
        }
    }
}
