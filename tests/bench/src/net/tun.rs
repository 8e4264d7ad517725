//! TUN devices.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use nix::fcntl::OFlag;

#[expect(unsafe_code, reason = "attaching to a TUN device takes an ioctl")]
mod ioctl {
    nix::ioctl_write_int!(set_interface, b'T', 202);

    /// Attaches `file` to the device that `request` describes.
    pub(super) fn attach(file: i32, request: &[u8; 40]) -> nix::Result<()> {
        // SAFETY: the request has the size of a struct ifreq and outlives the
        // call, and the kernel only reads and writes inside it.
        unsafe { set_interface(file, request.as_ptr() as u64) }.map(|_| ())
    }
}

/// Longest name of a network device.
const NAME_LIMIT: usize = 15;

/// Makes the device `name` in the network namespace of this thread. Each read
/// and write is one IP packet and never waits. The device is gone once the
/// file is closed.
///
/// # Errors
/// Without the privilege, or when the name is too long or taken.
pub(crate) fn open(name: &str) -> io::Result<File> {
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open("/dev/net/tun")?;
    let mut request = [0; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    // IFF_TUN | IFF_NO_PI: bare IP packets.
    request[16..18].copy_from_slice(&0x1001u16.to_ne_bytes());
    ioctl::attach(file.as_raw_fd(), &request)?;
    Ok(file)
}
