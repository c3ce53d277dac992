//! (room being built)
pub fn run() -> i32 {
    0
}
