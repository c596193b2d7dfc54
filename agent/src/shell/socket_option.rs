//! Options of sockets that no safe wrapper knows (setsockopt(2)).

use std::io;
use std::mem::size_of;
use std::os::fd::RawFd;

/// Sets an option to a value of the type that the kernel takes for it.
#[expect(unsafe_code, reason = "no safe wrapper takes any option")]
pub(crate) fn set_option<T: Copy>(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: `value` is whole and outlives the call, which only reads it, and its size is the one given.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
