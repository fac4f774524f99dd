//! Starting the disk early, so that the final sync finds little left to do.

use quantrs_formats::PartFile;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Bytes that are handed to the disk at a time.
const STEP_BYTES: u64 = 8 << 20;

/// A thread that asks the system to write finished ranges of a file while later ones are still computed.
///
/// The request can block for as long as the disk's queue is full, which is why no worker makes it.
#[derive(Debug)]
pub struct Writeback {
    sender: Option<Sender<(u64, u64)>>,
    thread: Option<JoinHandle<()>>,
}

impl Writeback {
    /// Start the thread. Where the system gives none, nothing is written early.
    pub fn start(file: Arc<PartFile>) -> Writeback {
        let (sender, receiver) = channel::<(u64, u64)>();
        let thread = std::thread::Builder::new().name("quantrs-writeback".to_owned()).spawn(move || {
            let (mut start, mut end) = (0, 0);
            for (offset, n_bytes) in receiver {
                if offset != end {
                    file.start_writeback(start, end - start);
                    start = offset;
                }
                end = offset + n_bytes;
                if end - start >= STEP_BYTES {
                    file.start_writeback(start, end - start);
                    start = end;
                }
            }
        });
        Writeback { sender: Some(sender), thread: thread.ok() }
    }

    /// A range is complete.
    pub fn finished(&self, offset: u64, n_bytes: u64) {
        if let Some(sender) = &self.sender {
            // The thread is gone only where it could not be started.
            let _ = sender.send((offset, n_bytes));
        }
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // A panic there could only have cost the early start.
            let _ = thread.join();
        }
    }
}
