use crate::channel::ChannelIo;
pub(crate) async fn serve(_io: &ChannelIo, _dir: std::path::PathBuf) -> std::io::Result<()> {
    Ok(())
}
