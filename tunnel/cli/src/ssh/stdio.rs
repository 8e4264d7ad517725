//! Standard input and output as the two ends of a connection.

use std::{io, time::Duration};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// One read or write; large enough that a bulk transfer is not made of many.
const BUFFER: usize = 256 * 1024;
/// After standard input has ended, how long the workspace may take to end
/// its side.
const DRAIN: Duration = Duration::from_secs(5);

/// Copies both ways until either side has ended.
pub(crate) async fn run(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<()> {
    let (mut far_read, mut far_write) = tokio::io::split(stream);
    let (mut input, mut output) = (input(), output());
    let upload = async {
        copy(&mut input, &mut far_write)
            .await
            .context("read standard input")?;
        // The workspace's answer to the end of input may still be on its way.
        let _ = far_write.shutdown().await;
        tokio::time::sleep(DRAIN).await;
        anyhow::Ok(())
    };
    let download = async {
        copy(&mut far_read, &mut output)
            .await
            .context("connection to the workspace")?;
        output.flush().await.context("write standard output")
    };
    let result = tokio::select! {
        result = download => result,
        result = upload => result,
    };
    match result {
        // OpenSSH has closed its end: that is how it ends a session.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Standard input without a helper thread where it is a pipe or a socket, as
/// OpenSSH makes it.
fn input() -> Box<dyn AsyncRead + Send + Unpin> {
    #[cfg(unix)]
    if let Some(input) = direct::input() {
        return input;
    }
    Box::new(tokio::io::stdin())
}

fn output() -> Box<dyn AsyncWrite + Send + Unpin> {
    #[cfg(unix)]
    if let Some(output) = direct::output() {
        return output;
    }
    Box::new(tokio::io::stdout())
}

#[cfg(unix)]
mod direct {
    use std::os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::FileTypeExt as _, net::UnixStream},
    };

    use tokio::{
        io::{AsyncRead, AsyncWrite},
        net::unix::pipe,
    };

    pub(super) fn input() -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        let fd = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
        match kind(&fd)? {
            Kind::Pipe => {
                enlarge(&fd);
                Some(Box::new(pipe::Receiver::from_owned_fd(fd).ok()?))
            }
            Kind::Socket => Some(Box::new(socket(fd)?)),
        }
    }

    pub(super) fn output() -> Option<Box<dyn AsyncWrite + Send + Unpin>> {
        let fd = std::io::stdout().as_fd().try_clone_to_owned().ok()?;
        match kind(&fd)? {
            Kind::Pipe => {
                enlarge(&fd);
                Some(Box::new(pipe::Sender::from_owned_fd(fd).ok()?))
            }
            Kind::Socket => Some(Box::new(socket(fd)?)),
        }
    }

    /// Gives a pipe room for several reads and writes, so that the two
    /// programs wait for each other less often.
    #[cfg(target_os = "linux")]
    fn enlarge(fd: &OwnedFd) {
        /// What Linux allows everybody by default.
        const CAPACITY: i32 = 1024 * 1024;
        // With the usual capacity it works, too.
        let _ = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETPIPE_SZ(CAPACITY));
    }

    #[cfg(not(target_os = "linux"))]
    fn enlarge(_: &OwnedFd) {}

    enum Kind {
        Pipe,
        Socket,
    }

    fn kind(fd: &OwnedFd) -> Option<Kind> {
        let file = std::fs::File::from(fd.try_clone().ok()?);
        let kind = file.metadata().ok()?.file_type();
        if kind.is_fifo() {
            Some(Kind::Pipe)
        } else if kind.is_socket() {
            Some(Kind::Socket)
        } else {
            None
        }
    }

    fn socket(fd: OwnedFd) -> Option<tokio::net::UnixStream> {
        let socket = UnixStream::from(fd);
        // Any other kind of socket is left to the helper thread.
        socket.local_addr().ok()?;
        socket.set_nonblocking(true).ok()?;
        tokio::net::UnixStream::from_std(socket).ok()
    }
}
