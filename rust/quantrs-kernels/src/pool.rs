//! The thread pool: persistent threads that a busy machine does not hurt.
//!
//! The calling thread takes part. Tasks are handed out by a counter, so a thread that the system took off its CPU delays only
//! the task in its hands, and a thread that never came is not waited for. Idle workers watch for work for some microseconds,
//! which bridges the gaps between the operations of a model, then give their time away, then sleep. There is no barrier on
//! which threads spin against each other.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a waiting thread watches the shared counters before it lets others have its CPU.
const SPIN: Duration = Duration::from_micros(30);
/// How long it then yields before it sleeps.
const YIELD: Duration = Duration::from_micros(200);

/// Threads that share the tasks of one [`run`](Pool::run) after the other.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a parallel run. A second run at the same time, also one from inside a task, goes on alone.
    running: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    /// Counts runs: odd while one is open. Workers act on a change.
    state: AtomicUsize,
    /// The open run; written only while the state is even and no worker is inside.
    job: UnsafeCell<Job>,
    /// The next task to hand out.
    next: AtomicUsize,
    /// Workers that may be looking at `job`.
    inside: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleeping_workers: AtomicUsize,
    caller_sleeps: AtomicBool,
    sleep: Mutex<()>,
    work: Condvar,
    done: Condvar,
}

/// A borrowed closure whose lifetime was erased.
#[derive(Clone, Copy, Debug)]
struct Job {
    task: *const (),
    call: unsafe fn(*const (), usize),
    n_tasks: usize,
}

// SAFETY: `job` is written and read in turns, as said at the field; the closure behind the pointer is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// # Safety
///
/// `task` points to a live `F`.
unsafe fn call<F: Fn(usize) + Sync>(task: *const (), i: usize) {
    // SAFETY: the caller's promise.
    unsafe { (*task.cast::<F>())(i) }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, seen: &mut usize) {
        let state = self.wait_for_work(*seen);
        *seen = state;
        self.inside.fetch_add(1, SeqCst);
        // Still open after having been counted: the caller now waits for this worker before the closure goes away.
        if self.state.load(SeqCst) == state && state % 2 == 1 {
            // SAFETY: the run is open and this worker counted, so nobody writes.
            let job = unsafe { *self.job.get() };
            self.take_tasks(job);
        }
        if self.inside.fetch_sub(1, SeqCst) == 1 && self.caller_sleeps.load(SeqCst) {
            let _guard = self.lock();
            self.done.notify_all();
        }
    }

    fn take_tasks(&self, job: Job) {
        let tasks = || {
            loop {
                let i = self.next.fetch_add(1, SeqCst);
                if i >= job.n_tasks {
                    break;
                }
                // SAFETY: the closure lives until the run is closed and no worker is inside.
                unsafe { (job.call)(job.task, i) };
            }
        };
        if catch_unwind(AssertUnwindSafe(tasks)).is_err() {
            self.panicked.store(true, SeqCst);
        }
    }

    /// The state once it is open and another than `seen`, or once the pool stops.
    fn wait_for_work(&self, seen: usize) -> usize {
        let ready = || {
            let state = self.state.load(SeqCst);
            ((state != seen && state % 2 == 1) || self.stop.load(SeqCst)).then_some(state)
        };
        if let Some(state) = watch(ready) {
            return state;
        }
        let mut guard = self.lock();
        self.sleeping_workers.fetch_add(1, SeqCst);
        let state = loop {
            if let Some(state) = ready() {
                break state;
            }
            guard = self.work.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleeping_workers.fetch_sub(1, SeqCst);
        state
    }

    fn wait_until_nobody_is_inside(&self) {
        let empty = || (self.inside.load(SeqCst) == 0).then_some(());
        if watch(empty).is_some() {
            return;
        }
        let mut guard = self.lock();
        self.caller_sleeps.store(true, SeqCst);
        while empty().is_none() {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, SeqCst);
    }

    fn wake_workers(&self) {
        if self.sleeping_workers.load(SeqCst) > 0 {
            let _guard = self.lock();
            self.work.notify_all();
        }
    }
}

/// Look again and again, first spinning, then yielding; None after a while.
fn watch<R>(ready: impl Fn() -> Option<R>) -> Option<R> {
    let start = Instant::now();
    loop {
        for _ in 0..16 {
            if let Some(result) = ready() {
                return Some(result);
            }
            std::hint::spin_loop();
        }
        let waited = start.elapsed();
        if waited > SPIN + YIELD {
            return None;
        }
        if waited > SPIN {
            std::thread::yield_now();
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; at least one. Where the system gives fewer, it has fewer.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { task: std::ptr::null(), call: call::<fn(usize)>, n_tasks: 0 }),
            next: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleeping_workers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            sleep: Mutex::new(()),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            let work = move || {
                let mut seen = 0;
                while !shared.stop.load(SeqCst) {
                    shared.work(&mut seen);
                }
            };
            std::thread::Builder::new().name(format!("quantrs-kernel-{i}")).spawn(work).ok()
        };
        let workers = (1..threads).map_while(spawn).collect();
        Pool { shared, workers, running: Mutex::new(()) }
    }

    /// The pool of `threads` threads that is kept for the life of the process; products of arrays use it. While one call runs on
    /// it, others go on alone.
    pub fn shared(threads: usize) -> Arc<Pool> {
        static POOLS: Mutex<BTreeMap<usize, Arc<Pool>>> = Mutex::new(BTreeMap::new());
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry(threads).or_insert_with(|| Arc::new(Pool::new(threads))).clone()
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Call `task(0)` to `task(n_tasks - 1)`, each once, on all threads; returns when all are done.
    ///
    /// A run from inside a task, or while another thread's run is under way, is done by the calling thread alone.
    /// Panics when a task panicked.
    pub fn run(&self, n_tasks: usize, task: impl Fn(usize) + Sync) {
        let alone = n_tasks <= 1 || self.workers.is_empty();
        match (alone, self.running.try_lock()) {
            (false, Ok(_running)) => self.share(n_tasks, &task),
            _ => (0..n_tasks).for_each(task),
        }
    }

    fn share<F: Fn(usize) + Sync>(&self, n_tasks: usize, task: &F) {
        let shared = &*self.shared;
        let job = Job { task: std::ptr::from_ref(task).cast(), call: call::<F>, n_tasks };
        // SAFETY: `running` is held, so this is the only caller; the state is even and no worker is inside.
        unsafe { *shared.job.get() = job };
        shared.next.store(0, SeqCst);
        shared.state.fetch_add(1, SeqCst);
        shared.wake_workers();
        shared.take_tasks(job);
        shared.state.fetch_add(1, SeqCst);
        shared.wait_until_nobody_is_inside();
        if shared.panicked.swap(false, SeqCst) {
            resume_unwind(Box::new("a task of the thread pool panicked"));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        {
            let _guard = self.shared.lock();
            self.shared.work.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, and it has nothing to return.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for n_tasks in [0, 1, 2, 7, 100, 1000] {
                let counts: Vec<_> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(n_tasks, |i| _ = counts[i].fetch_add(1, Relaxed));
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1), "{threads} threads, {n_tasks} tasks");
            }
        }
    }

    #[test]
    fn thousands_of_short_runs_with_and_without_pauses_lose_no_task() {
        let pool = Pool::new(4);
        let total = AtomicUsize::new(0);
        for i in 0..5000 {
            pool.run(5, |t| _ = total.fetch_add(t, Relaxed));
            if i % 500 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        assert_eq!(total.load(Relaxed), 5000 * 10);
    }

    #[test]
    fn a_run_inside_a_task_and_runs_from_several_threads_finish() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| pool.run(10, |_| pool.run(10, |_| _ = total.fetch_add(1, Relaxed))));
            }
        });
        assert_eq!(total.load(Relaxed), 300);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(100, |i| assert_ne!(i, 50))));
        assert!(result.is_err());
        let count = AtomicUsize::new(0);
        pool.run(100, |_| _ = count.fetch_add(1, Relaxed));
        assert_eq!(count.load(Relaxed), 100);
    }
}
