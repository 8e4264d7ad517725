//! Moving files: sftp, scp, rsync, git.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::process::Command;

use crate::harness::{Fixture, have, noise, run, run_with, text};

const MIB: usize = 1 << 20;

/// Runs an SFTP batch; every line must succeed.
async fn sftp(server: &Fixture, batch: &str) -> String {
    let mut command = server.copy_tool("sftp");
    command.args(["-q", "-b", "-", "127.0.0.1"]);
    text(&run_with(&mut command, batch.as_bytes().to_vec()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_moves_and_manages_files() {
    if !have(&["ssh", "sftp"]) {
        return;
    }
    let server = Fixture::start().await;
    let home = server.home.path();
    let local = tempfile::tempdir().unwrap();
    let data = noise(20 * MIB + 7);
    fs::write(local.path().join("big"), &data).unwrap();
    fs::write(home.join("old"), "old").unwrap();
    let l = local.path().display();
    let listing = sftp(
        &server,
        &format!(
            "pwd\nput {l}/big big\nget big {l}/back\nmkdir dir\nput {l}/big dir/x\n\
             rename dir/x old\nchmod 600 old\nln old hard\nln -s old soft\nls -l\n\
             df\nrm hard\nrmdir dir\nput -p {l}/big kept\n"
        ),
    )
    .await;
    assert!(listing.contains(&format!("Remote working directory: {}", home.display())));
    assert!(fs::read(home.join("big")).unwrap() == data);
    assert!(fs::read(local.path().join("back")).unwrap() == data);
    assert!(
        fs::read(home.join("old")).unwrap() == data,
        "rename over an existing file"
    );
    assert_eq!(
        fs::metadata(home.join("old")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_link(home.join("soft")).unwrap(), Path::new("old"));
    assert!(!home.join("hard").exists() && !home.join("dir").exists());
    assert!(listing.contains("lrwxrwxrwx"), "{listing}");
    let modified = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().mtime()
    };
    assert_eq!(
        modified(&home.join("kept")),
        modified(&local.path().join("big"))
    );
    let reports = server.reports.ended(1).await;
    assert_eq!(reports[0].end, Some((0, String::new())));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bytes_and_directories_are_big() {
    if !have(&["ssh", "sftp"]) {
        return;
    }
    let server = Fixture::start().await;
    let home = server.home.path();
    let odd = OsStr::from_bytes(b"odd \xff\xfe name");
    fs::create_dir(home.join("d")).unwrap();
    fs::write(home.join("d").join(odd), "odd content").unwrap();
    for i in 0..5000 {
        fs::write(
            home.join("d").join(format!("file-with-a-long-name-{i:05}")),
            "",
        )
        .unwrap();
    }
    let listing = sftp(&server, "ls -1 d\n").await;
    assert_eq!(
        listing.lines().filter(|l| l.contains("file-with")).count(),
        5000
    );
    let local = tempfile::tempdir().unwrap();
    sftp(&server, &format!("get -r d {}\n", local.path().display())).await;
    let copied = fs::read(local.path().join("d").join(odd)).unwrap();
    assert_eq!(copied, b"odd content");
    sftp(&server, &format!("put -r {}/d e\n", local.path().display())).await;
    assert_eq!(fs::read_dir(home.join("e")).unwrap().count(), 5001);
    assert!(home.join("e").join(odd).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_and_the_session_goes_on() {
    if !have(&["ssh", "sftp"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut command = server.copy_tool("sftp");
    command.args(["-q", "-b", "-", "127.0.0.1"]);
    let batch = "-get missing x\n-rmdir missing\n-ls /root/none\n!echo local\npwd\n";
    let output = run_with(&mut command, batch.as_bytes().to_vec()).await;
    assert!(output.status.success(), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("not found") || errors.contains("No such file"),
        "{errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_by_both_protocols() {
    if !have(&["ssh", "scp"]) {
        return;
    }
    let server = Fixture::start().await;
    let local = tempfile::tempdir().unwrap();
    let data = noise(9 * MIB + 1);
    fs::create_dir_all(local.path().join("tree/sub")).unwrap();
    fs::write(local.path().join("tree/sub/file"), &data).unwrap();
    for (protocol, name) in [("-O", "old"), ("-s", "new")] {
        let mut put = server.copy_tool("scp");
        put.args([protocol, "-r", "-q"])
            .arg(local.path().join("tree"));
        text(&run(put.arg(format!("127.0.0.1:{name}"))).await);
        let uploaded = server.home.path().join(name).join("sub/file");
        assert!(fs::read(uploaded).unwrap() == data);
        let mut get = server.copy_tool("scp");
        get.args([protocol, "-q"])
            .arg(format!("127.0.0.1:~/{name}/sub/file"));
        let back = local.path().join(name);
        text(&run(get.arg(&back)).await);
        assert!(fs::read(back).unwrap() == data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_copies_trees() {
    if !have(&["ssh", "rsync"]) {
        return;
    }
    let server = Fixture::start().await;
    let local = tempfile::tempdir().unwrap();
    let data = noise(5 * MIB);
    fs::create_dir_all(local.path().join("a/b")).unwrap();
    fs::write(local.path().join("a/b/c"), &data).unwrap();
    let sync = |from: String, to: String| {
        let mut rsync = Command::new("rsync");
        server.prepare(&mut rsync);
        rsync.args(["-a", "-e", &server.ssh_command_line(), &from, &to]);
        async move { text(&run(&mut rsync).await) }
    };
    let here = local.path().display().to_string();
    sync(format!("{here}/a/"), "127.0.0.1:copy/".into()).await;
    assert!(fs::read(server.home.path().join("copy/b/c")).unwrap() == data);
    fs::write(server.home.path().join("copy/new"), "new").unwrap();
    sync("127.0.0.1:copy/".into(), format!("{here}/back/")).await;
    assert!(fs::read(local.path().join("back/b/c")).unwrap() == data);
    assert_eq!(fs::read(local.path().join("back/new")).unwrap(), b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes() {
    if !have(&["ssh", "git"]) {
        return;
    }
    let server = Fixture::start().await;
    let home = server.home.path();
    let make = "git init -q -b main repo && cd repo && git config user.name a && \
        git config user.email a@b && head -c 3000000 /dev/urandom > blob && git add . && \
        git commit -q -m one && git config receive.denyCurrentBranch updateInstead";
    server.text(make).await;
    let local = tempfile::tempdir().unwrap();
    let git = |dir: &Path, arguments: &[&str]| {
        let mut git = Command::new("git");
        server.prepare(&mut git);
        git.current_dir(dir).args(arguments);
        async move { text(&run(&mut git).await) }
    };
    let url = format!("ssh://127.0.0.1{}/repo", home.display());
    git(local.path(), &["clone", "-q", &url, "clone"]).await;
    let clone = local.path().join("clone");
    assert!(fs::read(clone.join("blob")).unwrap() == fs::read(home.join("repo/blob")).unwrap());
    fs::write(clone.join("blob"), noise(2 * MIB)).unwrap();
    let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
    git(
        &clone,
        &[&identity[..], &["commit", "-q", "-a", "-m", "two"]].concat(),
    )
    .await;
    git(&clone, &["push", "-q"]).await;
    assert!(fs::read(home.join("repo/blob")).unwrap() == noise(2 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_transfers_fail_with_65() {
    if !have(&["ssh", "scp", "sftp"]) {
        return;
    }
    let server = Fixture::start_with(|c| c.block_file_transfer = true).await;
    let output = server.exec("scp -t x").await;
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(output.stdout, b"\x02File transfer has been disabled.\n");
    let output = run(server.ssh(&["-s"]).arg("sftp")).await;
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(65), &b""[..])
    );
    assert_eq!(server.exec("echo scp").await.status.code(), Some(0));
    let reports = server.reports.ended(3).await;
    assert_eq!(reports[0].end, Some((65, "file transfer blocked".into())));
}
