//! Terminal modes as SSH carries them (RFC 4254 §8, RFC 8160).

use std::io;
use std::os::fd::BorrowedFd;

use nix::libc;
use nix::sys::termios::{
    BaudRate, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices,
    Termios, tcgetattr, tcsetattr,
};

/// SSH's spelling of a disabled control character.
const DISABLED: u32 = 255;
const ISPEED: u8 = 128;
const OSPEED: u8 = 129;

/// Opcode and argument pairs in the order the client sent them. Opcodes that
/// mean nothing here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TerminalModes(pub Vec<(u8, u32)>);

impl TerminalModes {
    /// Sets the modes of `terminal`.
    ///
    /// # Errors
    /// The system's error if the terminal refuses.
    pub fn apply(&self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut termios = tcgetattr(terminal)?;
        for (opcode, value) in &self.0 {
            apply_one(&mut termios, *opcode, *value);
        }
        tcsetattr(terminal, SetArg::TCSANOW, &termios)?;
        Ok(())
    }
}

fn apply_one(termios: &mut Termios, opcode: u8, value: u32) {
    let on = value != 0;
    if let Some(index) = control_character(opcode) {
        let byte = if value == DISABLED {
            libc::_POSIX_VDISABLE
        } else {
            u8::try_from(value).unwrap_or(libc::_POSIX_VDISABLE)
        };
        if let Some(slot) = termios.control_chars.get_mut(index as usize) {
            *slot = byte;
        }
    } else if let Some(flag) = input_flag(opcode) {
        termios.input_flags.set(flag, on);
    } else if let Some(flag) = local_flag(opcode) {
        termios.local_flags.set(flag, on);
    } else if let Some(flag) = output_flag(opcode) {
        termios.output_flags.set(flag, on);
    } else {
        apply_line(termios, opcode, value);
    }
}

/// Character size, parity and speed.
fn apply_line(termios: &mut Termios, opcode: u8, value: u32) {
    let on = value != 0;
    match opcode {
        90 | 91 if on => {
            termios.control_flags.remove(ControlFlags::CSIZE);
            termios.control_flags.insert(if opcode == 90 {
                ControlFlags::CS7
            } else {
                ControlFlags::CS8
            });
        }
        92 => termios.control_flags.set(ControlFlags::PARENB, on),
        93 => termios.control_flags.set(ControlFlags::PARODD, on),
        ISPEED | OSPEED => {
            if let Some(rate) = baud_rate(value) {
                set_speed(termios, rate);
            }
        }
        _ => {}
    }
}

/// Linux keeps one speed for both directions, in the control flags. The C
/// library's functions for it cannot be linked statically.
#[cfg(target_os = "linux")]
fn set_speed(termios: &mut Termios, rate: BaudRate) {
    let speed = ControlFlags::from_bits_truncate(rate as libc::tcflag_t);
    termios.control_flags.remove(ControlFlags::CBAUD);
    termios.control_flags.insert(speed & ControlFlags::CBAUD);
}

#[cfg(not(target_os = "linux"))]
fn set_speed(termios: &mut Termios, rate: BaudRate) {
    let _ = nix::sys::termios::cfsetspeed(termios, rate);
}

fn control_character(opcode: u8) -> Option<SpecialCharacterIndices> {
    use SpecialCharacterIndices as C;
    Some(match opcode {
        1 => C::VINTR,
        2 => C::VQUIT,
        3 => C::VERASE,
        4 => C::VKILL,
        5 => C::VEOF,
        6 => C::VEOL,
        7 => C::VEOL2,
        8 => C::VSTART,
        9 => C::VSTOP,
        10 => C::VSUSP,
        12 => C::VREPRINT,
        13 => C::VWERASE,
        14 => C::VLNEXT,
        #[cfg(target_os = "linux")]
        16 => C::VSWTC,
        18 => C::VDISCARD,
        _ => return None,
    })
}

fn input_flag(opcode: u8) -> Option<InputFlags> {
    use InputFlags as F;
    Some(match opcode {
        30 => F::IGNPAR,
        31 => F::PARMRK,
        32 => F::INPCK,
        33 => F::ISTRIP,
        34 => F::INLCR,
        35 => F::IGNCR,
        36 => F::ICRNL,
        #[cfg(target_os = "linux")]
        37 => F::from_bits_retain(libc::IUCLC),
        38 => F::IXON,
        39 => F::IXANY,
        40 => F::IXOFF,
        41 => F::IMAXBEL,
        42 => F::IUTF8,
        _ => return None,
    })
}

fn local_flag(opcode: u8) -> Option<LocalFlags> {
    use LocalFlags as F;
    Some(match opcode {
        50 => F::ISIG,
        51 => F::ICANON,
        #[cfg(target_os = "linux")]
        52 => F::from_bits_retain(libc::XCASE),
        53 => F::ECHO,
        54 => F::ECHOE,
        55 => F::ECHOK,
        56 => F::ECHONL,
        57 => F::NOFLSH,
        58 => F::TOSTOP,
        59 => F::IEXTEN,
        60 => F::ECHOCTL,
        61 => F::ECHOKE,
        62 => F::PENDIN,
        _ => return None,
    })
}

fn output_flag(opcode: u8) -> Option<OutputFlags> {
    use OutputFlags as F;
    Some(match opcode {
        70 => F::OPOST,
        #[cfg(target_os = "linux")]
        71 => F::from_bits_retain(libc::OLCUC),
        72 => F::ONLCR,
        73 => F::OCRNL,
        74 => F::ONOCR,
        75 => F::ONLRET,
        _ => return None,
    })
}

fn baud_rate(bits_per_second: u32) -> Option<BaudRate> {
    Some(match bits_per_second {
        0 => BaudRate::B0,
        50 => BaudRate::B50,
        75 => BaudRate::B75,
        110 => BaudRate::B110,
        134 => BaudRate::B134,
        150 => BaudRate::B150,
        200 => BaudRate::B200,
        300 => BaudRate::B300,
        600 => BaudRate::B600,
        1200 => BaudRate::B1200,
        1800 => BaudRate::B1800,
        2400 => BaudRate::B2400,
        4800 => BaudRate::B4800,
        9600 => BaudRate::B9600,
        19_200 => BaudRate::B19200,
        38_400 => BaudRate::B38400,
        57_600 => BaudRate::B57600,
        115_200 => BaudRate::B115200,
        230_400 => BaudRate::B230400,
        _ => return None,
    })
}
