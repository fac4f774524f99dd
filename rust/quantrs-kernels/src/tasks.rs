//! How the rows of several products are cut into tasks.

use std::ops::Range;

/// Some rows of one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) product: usize,
    pub(crate) rows: Range<usize>,
}

/// Cut products, given as rows and the work of a row, into tasks of whole `units` of rows but for the last of each product.
///
/// The first tasks are long, because each one starts cold; towards the end they are shorter, so that the threads finish together:
/// each is a thread's share of half of what is left, at most `most` of work and at least `least` where there are more rows.
pub(crate) fn cut(products: &[(usize, usize)], threads: usize, unit: usize, least: usize, most: usize) -> Vec<Task> {
    let mut left: usize = products.iter().map(|(n_rows, work)| n_rows * work).sum();
    let mut tasks = Vec::new();
    for (product, &(n_rows, work)) in products.iter().enumerate() {
        let mut start = 0;
        while start < n_rows {
            let share = (left / (2 * threads)).clamp(least, most);
            let units = (share / (unit * work).max(1)).max(1);
            let end = n_rows.min(start + units * unit);
            left -= (end - start) * work;
            tasks.push(Task { product, rows: start..end });
            start = end;
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_task_and_the_last_tasks_are_short() {
        for threads in [1, 2, 7] {
            for products in [&[(1, 5)][..], &[(100, 1000), (33, 10), (0, 3), (4096, 1152)], &[(512, 0)]] {
                for unit in [1, 32] {
                    let tasks = cut(products, threads, unit, 4000, 200_000);
                    for (product, (n_rows, _)) in products.iter().enumerate() {
                        let mut next = 0;
                        for task in tasks.iter().filter(|t| t.product == product) {
                            assert!(task.rows.start == next && task.rows.end > next, "{task:?} after {next}");
                            assert!(next.is_multiple_of(unit), "{task:?} starts inside a unit");
                            next = task.rows.end;
                        }
                        assert_eq!(next, *n_rows);
                    }
                }
            }
        }
        let tasks = cut(&[(4096, 1000)], 2, 1, 4000, 200_000);
        let (first, last) = (tasks[0].rows.len(), tasks.last().unwrap().rows.len());
        assert!(first == 200 && last <= 4, "{first} rows first, {last} last");
    }
}
