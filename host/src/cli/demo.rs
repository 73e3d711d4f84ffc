//! placeholder until joined
#[derive(clap::Args, Debug)]
pub(super) struct Demo {}
impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<std::process::ExitCode> {
        anyhow::bail!("being built")
    }
}
