//! Keys of a terminal, one by one.

use std::io::IsTerminal;
use std::time::Duration;

/// What a terminal sends for Ctrl-C while `Keys` are read.
pub const CTRL_C: u8 = 3;

/// The terminal at the standard input, which hands over keys as they are pressed and does not show them. As it was before once
/// this is dropped.
pub struct Keys {
    before: libc::termios,
}

impl Keys {
    /// `None` where the standard input is no terminal.
    pub fn of_stdin() -> Option<Keys> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        // JUSTIFICATION: std knows no modes of terminals. SAFETY: termios is plain numbers, for which zeros are fine, and both
        // pointers are to locals that live through the calls.
        unsafe {
            let mut before: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(libc::STDIN_FILENO, &mut before) != 0 {
                return None;
            }
            let mut mode = before;
            // Ctrl-C comes as a key, so that the mode is given back before the end.
            mode.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
            (libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &mode) == 0).then_some(Keys { before })
        }
    }

    /// The next key, waited for no longer than this; `None` where none came. An input that has ended is as Ctrl-C.
    pub fn wait(&self, longest: Duration) -> Option<u8> {
        let mut asked = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
        let ms = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
        let mut key = 0u8;
        // JUSTIFICATION: std has no poll, and buffers what it reads. SAFETY: one entry is told and given; one byte is read into a
        // local of one byte.
        unsafe {
            if libc::poll(&mut asked, 1, ms) <= 0 {
                return None;
            }
            let got = libc::read(libc::STDIN_FILENO, (&raw mut key).cast(), 1);
            Some(if got == 1 { key } else { CTRL_C })
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // JUSTIFICATION: as above. SAFETY: the pointer is to a field that lives through the call. A failure leaves nothing to do.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &self.before) };
    }
}
