//! A small filesystem of its own on a loop device: to be filled, failed and looked at.

use std::path::{Path, PathBuf};

use super::{arg, ok, run};

/// A mounted filesystem on an image file; unmounted at the end, come what may.
pub struct LoopFs {
    pub point: PathBuf,
}

impl LoopFs {
    /// Makes an ext4 of a size in `dir/image` and mounts it on `dir/disk`.
    pub fn ext4(dir: &Path, mib: u64) -> LoopFs {
        let image = dir.join("image");
        ok("truncate", &["-s", &format!("{mib}M"), arg(&image)], 10);
        ok("mkfs.ext4", &["-q", "-F", arg(&image)], 60);
        LoopFs::mount(&image, &dir.join("disk"))
    }

    pub fn mount(image: &Path, point: &Path) -> LoopFs {
        std::fs::create_dir_all(point).unwrap();
        ok("mount", &["-o", "loop", arg(image), arg(point)], 60);
        LoopFs { point: point.into() }
    }

    /// Takes the filesystem down and mounts it again, which repairs what its journal can.
    pub fn remount(&self, image: &Path) {
        ok("umount", &[arg(&self.point)], 60);
        ok("mount", &["-o", "loop", arg(image), arg(&self.point)], 60);
    }

    /// Bytes available to users.
    pub fn available(&self) -> u64 {
        super::sys::space(&self.point).unwrap().2
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let plain = run("umount", &[arg(&self.point)], 60);
        if plain.code != Some(0) {
            run("umount", &["-l", arg(&self.point)], 60);
        }
    }
}
