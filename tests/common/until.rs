use std::sync::atomic::{AtomicBool, Ordering};

/// Tells threads that go on until the flag is set to end, also where a test fails: its scope would wait for them forever.
pub struct Until<'a>(pub &'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
