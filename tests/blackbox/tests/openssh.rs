//! OpenSSH and all that is built on it, through `adit ssh --stdio`.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use adit_test_harness::{
    Dev,
    dev::{COMMAND_LIMIT, success},
    free_port, need_tool,
    process::{run, run_into},
    until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sha2::{Digest as _, Sha256};

const GIB: u64 = 1 << 30;

/// A file of bytes that do not compress; returns its digest.
fn write_noise(path: &Path, length: u64) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; 1 << 20];
    let mut file = File::create(path).unwrap();
    let mut left = length;
    let mut digest = Sha256::new();
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let length = usize::try_from(left.min(block.len() as u64)).unwrap();
        file.write_all(&block[..length]).unwrap();
        digest.update(&block[..length]);
        left -= length as u64;
    }
    format!("{:x}", digest.finalize())
}

fn digest_of(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).unwrap() {
            0 => return format!("{:x}", digest.finalize()),
            read => digest.update(&block[..read]),
        }
    }
}

#[test]
fn a_gibibyte_arrives_intact_both_ways() {
    if need_tool("ssh").is_none() {
        return;
    }
    let dev = Dev::start();
    let host = dev.ssh_host();
    let local = dev.dir().join("noise");
    let back = dev.dir().join("back");
    let digest = write_noise(&local, GIB);
    let limit = COMMAND_LIMIT * 5;
    let upload = run(
        dev.openssh("ssh")
            .args([host.as_str(), "cat > noise && sha256sum noise"])
            .stdin(File::open(&local).unwrap()),
        limit,
    );
    assert!(
        success(upload).starts_with(&digest),
        "the upload was damaged"
    );
    let download = run_into(
        dev.openssh("ssh")
            .args([host.as_str(), "cat noise"])
            .stdout(File::create(&back).unwrap()),
        limit,
    );
    let _ = success(download);
    assert_eq!(digest_of(&back), digest, "the download was damaged");
}

#[test]
fn files_by_every_tool() {
    let dev = Dev::start();
    let host = dev.ssh_host();
    let work = dev.dir().join("work");
    fs::create_dir(&work).unwrap();
    let file = work.join("noise");
    let digest = write_noise(&file, 20 << 20);

    if need_tool("scp").is_some() {
        for legacy in [false, true] {
            let back = work.join("scp-back");
            let mut up = dev.openssh("scp");
            let mut down = dev.openssh("scp");
            if legacy {
                // The protocol before SFTP, which runs scp on both sides.
                up.arg("-O");
                down.arg("-O");
            }
            let _ = success(run(
                up.arg(&file).arg(format!("{host}:scp-noise")),
                COMMAND_LIMIT,
            ));
            let _ = success(run(
                down.arg(format!("{host}:scp-noise")).arg(&back),
                COMMAND_LIMIT,
            ));
            assert_eq!(digest_of(&back), digest);
        }
    }
    if need_tool("sftp").is_some() {
        let back = work.join("sftp-back");
        let batch = work.join("batch");
        fs::write(
            &batch,
            format!(
                "put {} sftp-noise\nrename sftp-noise moved\nls -l moved\nget moved {}\nmkdir d\nrmdir d\nrm moved\n",
                file.display(),
                back.display()
            ),
        )
        .unwrap();
        let _ = success(run(
            dev.openssh("sftp").arg("-b").arg(&batch).arg(&host),
            COMMAND_LIMIT,
        ));
        assert_eq!(digest_of(&back), digest);
    }
    if need_tool("rsync").is_some() {
        let tree = work.join("tree");
        fs::create_dir(&tree).unwrap();
        for index in 0..200 {
            fs::write(
                tree.join(format!("file {index}")),
                format!("content {index}"),
            )
            .unwrap();
        }
        let shell = format!("ssh -F {} -o BatchMode=yes", dev.ssh_config().display());
        let rsync = |from: &str, to: &str| {
            let mut command = Command::new("rsync");
            command.args(["-a", "--delete", "-e", &shell, from, to]);
            let _ = success(run(&mut command, COMMAND_LIMIT));
        };
        rsync(&format!("{}/", tree.display()), &format!("{host}:tree/"));
        rsync(
            &format!("{host}:tree/"),
            &format!("{}/", work.join("tree-back").display()),
        );
        for index in [0, 99, 199] {
            let text =
                fs::read_to_string(work.join("tree-back").join(format!("file {index}"))).unwrap();
            assert_eq!(text, format!("content {index}"));
        }
    }
    if need_tool("git").is_some() {
        let _ = success(run(
            dev.openssh("ssh").args([
                host.as_str(),
                "git init -q repo && cd repo && git config user.email a@b && git config user.name n \
                 && echo hi > f && git add f && git commit -qm first && pwd",
            ]),
            COMMAND_LIMIT,
        ));
        let clone = work.join("clone");
        let mut command = Command::new("git");
        command
            .args(["clone", "-q", &format!("{host}:repo")])
            .arg(&clone)
            .env("HOME", dev.dir())
            .env(
                "GIT_SSH_COMMAND",
                format!("ssh -F {} -o BatchMode=yes", dev.ssh_config().display()),
            );
        let _ = success(run(&mut command, COMMAND_LIMIT));
        assert_eq!(fs::read_to_string(clone.join("f")).unwrap(), "hi\n");
    }
}

#[test]
fn twenty_sessions_at_once() {
    if need_tool("ssh").is_none() {
        return;
    }
    let dev = Dev::start();
    let host = dev.ssh_host();
    let children: Vec<_> = (0..20)
        .map(|index| {
            dev.openssh("ssh")
                .args([host.as_str(), &format!("echo {index}")])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (index, child) in children.into_iter().enumerate() {
        assert_eq!(
            success(child.wait_with_output().unwrap()),
            format!("{index}\n")
        );
    }
}

#[test]
fn a_killed_client_leaves_nothing_behind() {
    if need_tool("ssh").is_none() {
        return;
    }
    let dev = Dev::start();
    let host = dev.ssh_host();
    // A marker in the environment names the remote processes.
    let marker = format!("adit-marker-{}", std::process::id());
    let mut client = dev
        .openssh("ssh")
        .args([
            "-tt",
            host.as_str(),
            &format!("exec -a {marker} sleep 1000"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let named = || {
        adit_test_harness::process::processes_with(&marker)
            .into_iter()
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(marker.as_bytes()))
            })
            .collect::<Vec<_>>()
    };
    until("the remote command to run", || {
        if named().is_empty() {
            Err("not yet")
        } else {
            Ok(())
        }
    });
    kill(Pid::from_raw(client.id().cast_signed()), Signal::SIGKILL).unwrap();
    let _ = client.wait();
    until("the remote command to be gone", || {
        let left = named();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

#[test]
fn forwards_and_terminals() {
    if need_tool("ssh").is_none() {
        return;
    }
    let dev = Dev::start();
    let host = dev.ssh_host();
    let size = run(
        dev.openssh("ssh")
            .args(["-tt", host.as_str(), "stty size; tty"]),
        COMMAND_LIMIT,
    );
    let text = success(size);
    assert!(text.contains("/dev/pts/"), "{text}");

    // -L: a service in the workspace, reached here.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the service").unwrap();
    });
    let local = free_port();
    let mut forward = dev
        .openssh("ssh")
        .args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"])
        .args([&format!("127.0.0.1:{local}:127.0.0.1:{service}"), &host])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut stream = until("the forward to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", local))
    });
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the service");
    server.join().unwrap();
    forward.kill().unwrap();
    let _ = forward.wait();
}
