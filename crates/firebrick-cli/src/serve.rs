//! `firebrick serve …`

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use firebrick_serve::{Limits, Server, interrupt, serve};

use crate::generate::Way;
use crate::say::{remark, say};

pub(crate) const EXAMPLES: &str = "Examples:
  firebrick serve --model model.gguf
  firebrick serve --model runs/rlhf-world/09-ppo --port 8080 --slots 16 --context 2048
  curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"model\": \"model\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'
Then, in Python:
  OpenAI(base_url=\"http://localhost:8000/v1\", api_key=\"none\").chat.completions.create(model=\"model\", …)
The model is called what /v1/models tells. Answers are as the checkpoint's generation settings say where a request says nothing. Ctrl-C
lets answers that have begun come to their end for some seconds.";

#[derive(Args)]
pub(crate) struct Serve {
    /// A folder of transformers, a stage of a pipeline's run, a .gguf file, or hub:OWNER/NAME.
    #[arg(long)]
    model: String,
    /// The address to listen at; this machine alone reaches the default.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Samples that grow side by side.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// The most tokens of a prompt and its answer; the model's context where it is left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Requests that may wait while there is no free slot; more are refused.
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: u16,
    #[command(flatten)]
    way: Way,
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(command: Serve) -> Result<ExitCode> {
    let Serve { model, host, port, slots, context, queue, way } = command;
    let asked = SocketAddr::new(host, port);
    // First, so that nobody waits for a model that cannot be served.
    let listener = TcpListener::bind(asked)
        .with_context(|| format!("cannot listen at {asked}; choose another --port or --host"))?;
    let checkpoint = way.open(&model)?;
    let context = context.map_or(usize::MAX, |context| context as usize);
    let limits = Limits { slots: usize::from(slots), context, queue: usize::from(queue) };
    let server = Server::new(checkpoint, limits);
    if !host.is_loopback() {
        remark(format_args!("warning: whoever reaches {host} can use this server; it asks for no key"));
    }
    let address = listener.local_addr().context("the listener has no address")?;
    say(format_args!(
        "{} at http://{address}/v1: {slots} slots, context {}; Ctrl-C ends",
        server.name(),
        server.limits().context
    ));
    serve(server, listener, interrupt()).context("the server cannot go on")?;
    remark("ended");
    Ok(ExitCode::SUCCESS)
}
