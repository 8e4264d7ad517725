//! Sessions on a terminal. The client runs on a terminal of its own.

use std::path::PathBuf;
use std::sync::Arc;

use adit_agent_exec::{Command, Environment, PtyChild, PtyReader, TerminalModes, WindowSize};
use adit_agent_ssh::Greeting;
use tokio::io::AsyncWriteExt;

use crate::harness::{Fixture, have, read_until, until, within};

const SIZE: WindowSize = WindowSize { cols: 97, rows: 31 };

struct Terminal {
    client: PtyChild,
    output: PtyReader,
}

impl Terminal {
    fn open(server: &Fixture, arguments: &[&str]) -> Self {
        let tool = server.ssh(arguments);
        let tool = tool.as_std();
        let mut argv = vec![tool.get_program().to_owned()];
        argv.extend(tool.get_args().map(Into::into));
        let mut env = Environment::new();
        env.set("PATH", std::env::var_os("PATH").unwrap_or_default());
        env.set("HOME", server.home.path());
        env.set("TERM", "xterm-256color");
        let client = Command::new(argv, env, server.home.path())
            .spawn_pty(SIZE, &TerminalModes::default(), false)
            .unwrap();
        let output = client.pty.reader();
        Self { client, output }
    }

    async fn type_text(&self, text: &str) {
        self.client
            .pty
            .writer()
            .write_all(text.as_bytes())
            .await
            .unwrap();
    }

    async fn wait_for(&mut self, text: &str) -> String {
        read_until(&mut self.output, text).await
    }

    async fn end(mut self) -> Option<i32> {
        match within(self.client.child.wait()).await.unwrap() {
            adit_agent_exec::ExitStatus::Code(code) => Some(code),
            adit_agent_exec::ExitStatus::Signal(_) => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn size_type_and_exit_status() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut terminal = Terminal::open(&server, &["-tt"]);
    terminal.type_text("echo \"<$(stty size) $TERM>\"\r").await;
    terminal.wait_for("<31 97 xterm-256color>").await;
    let larger = WindowSize {
        cols: 140,
        rows: 50,
    };
    terminal
        .type_text("trap 'echo \"[$(stty size)]\"' WINCH; echo \"tr\"ap set\r")
        .await;
    terminal.wait_for("trap set").await;
    terminal.client.pty.resize(larger).unwrap();
    // The shell runs traps between commands.
    terminal.type_text("\r").await;
    terminal.wait_for("[50 140]").await;
    terminal
        .type_text("test $SSH_TTY = $(tty) && exit 42\r")
        .await;
    assert_eq!(terminal.end().await, Some(42));
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_are_signals() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut terminal = Terminal::open(&server, &["-tt"]);
    terminal.type_text("(trap 'echo \"in\"terrupted; exit 5' INT; echo \"rea\"dy; while :; do read -r x; done)\r").await;
    terminal.wait_for("ready").await;
    terminal.type_text("\x03").await;
    terminal.wait_for("interrupted").await;
    terminal.type_text("exit\r").await;
    assert_eq!(terminal.end().await, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_typed_line_is_never_run() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mark = server.home.path().join("executed");
    for shell in ["exec bash -i", "exec sh", "exec cat | sh"] {
        let mut terminal = Terminal::open(&server, &["-tt", "-e", "none"]);
        terminal
            .type_text(&format!("echo \"pid\" is $$; {shell}\r"))
            .await;
        terminal.wait_for("pid is ").await;
        terminal
            .type_text(&format!("touch {}", mark.display()))
            .await;
        // The server has echoed it, so it has been typed.
        terminal.wait_for("executed").await;
        terminal
            .client
            .child
            .signal(adit_agent_exec::Signal::SIGKILL)
            .unwrap();
        assert_eq!(terminal.end().await, None);
        server.quiet().await;
        assert!(!mark.exists(), "{shell}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_client_takes_its_terminal_along() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut terminal = Terminal::open(&server, &["-tt"]);
    let trap = "trap 'echo hup > hup; exit' HUP; echo \"pid\"=$$=; while :; do read -r x; done\r";
    terminal.type_text(trap).await;
    let seen = terminal.wait_for("=\r\n").await;
    let pid: PathBuf = PathBuf::from("/proc").join(
        seen.split("pid=")
            .nth(1)
            .and_then(|s| s.split('=').next())
            .unwrap(),
    );
    assert!(pid.exists());
    terminal
        .client
        .child
        .signal(adit_agent_exec::Signal::SIGKILL)
        .unwrap();
    terminal.end().await;
    server.quiet().await;
    until("the shell ends", || !pid.exists()).await;
    assert!(
        server.home.path().join("hup").exists(),
        "no SIGHUP before the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_ignores_hangup_is_killed() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut terminal = Terminal::open(&server, &["-tt"]);
    terminal
        .type_text("trap '' HUP; echo \"pid\"=$$=; while :; do sleep 1; done\r")
        .await;
    let seen = terminal.wait_for("=\r\n").await;
    let pid = PathBuf::from("/proc").join(
        seen.split("pid=")
            .nth(1)
            .and_then(|s| s.split('=').next())
            .unwrap(),
    );
    terminal
        .client
        .child
        .signal(adit_agent_exec::Signal::SIGKILL)
        .unwrap();
    terminal.end().await;
    until("the shell is killed", || !pid.exists()).await;
}

struct Texts(PathBuf);

impl Greeting for Texts {
    fn banners(&self) -> Vec<String> {
        vec!["  Maintenance\nat noon ".into(), " ".into()]
    }

    fn motd_file(&self) -> Option<PathBuf> {
        Some(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn login_shells_are_greeted() {
    if !have(&["ssh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let motd = dir.path().join("motd");
    std::fs::write(&motd, "Welcome\nhome\n").unwrap();
    let server = Fixture::start_with(|c| c.greeting = Arc::new(Texts(motd))).await;
    let mut terminal = Terminal::open(&server, &["-tt"]);
    terminal
        .wait_for("Maintenance\r\nat noon\r\n\r\nWelcome\r\nhome\r\n")
        .await;
    terminal.type_text("exit\r").await;
    terminal.end().await;
    std::fs::write(server.home.path().join(".hushlogin"), "").unwrap();
    let mut terminal = Terminal::open(&server, &["-tt"]);
    let mut seen = terminal.wait_for("at noon").await;
    terminal.type_text("exit\r").await;
    seen += &terminal.wait_for("logout").await;
    assert!(!seen.contains("Welcome"), "{seen}");
    terminal.end().await;
    assert!(!server.text("true").await.contains("noon"));
}
