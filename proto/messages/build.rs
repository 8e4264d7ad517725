//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed=proto");

    let tailnet = protox::compile(["proto/tailnet.proto"], ["proto"])?;
    config().compile_fds(tailnet)?;

    let all = protox::compile(["proto/agent.proto"], ["proto"])?;
    fs::write(out.join("descriptors.bin"), all.encode_to_vec())?;
    config()
        .extern_path(".coder.tailnet.v2", "crate::tailnet")
        .compile_fds(all)?;
    Ok(())
}

/// Byte fields share the buffer they were decoded from; maps are ordered, so
/// that encoding the same value twice gives the same bytes.
fn config() -> prost_build::Config {
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    config
}
