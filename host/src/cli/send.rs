//! `backstop send`: one request through a running host.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use super::host_url;
use crate::dispatch::HostClient;

#[derive(clap::Args, Debug)]
pub(super) struct Send {
    /// The route.
    route: String,
    /// The path below it, with a query if you like.
    #[arg(default_value = "")]
    path: String,
    /// The method. Default: POST with a body, GET without.
    #[arg(short = 'X', long)]
    method: Option<Method>,
    /// A header field.
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The body; `@FILE` reads it from a file.
    #[arg(short, long)]
    data: Option<String>,
    /// Where the host takes messages.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = host_url)]
    listen: Url,
}

impl Send {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut headers = HeaderMap::new();
        for field in &self.header {
            let Some((name, value)) = field.split_once(':') else {
                bail!("-H {field:?} is not a header field; write -H 'name: value'");
            };
            let name = HeaderName::try_from(name.trim()).with_context(|| format!("{name:?} is not a header name"))?;
            let value =
                HeaderValue::try_from(value.trim()).with_context(|| format!("{name}: that value cannot be sent"))?;
            headers.append(name, value);
        }
        let body = match self.data.as_deref().map(|data| (data, data.strip_prefix('@'))) {
            None => Vec::new(),
            Some((_, Some(file))) => tokio::fs::read(file).await.with_context(|| format!("failed to read {file}"))?,
            Some((text, None)) => {
                if serde_json::from_str::<serde_json::Value>(text).is_ok() && !headers.contains_key("content-type") {
                    headers.insert("content-type", HeaderValue::from_static("application/json"));
                }
                text.as_bytes().to_vec()
            }
        };
        let method = self.method.unwrap_or(if self.data.is_some() { Method::POST } else { Method::GET });
        let path = match self.path.strip_prefix('/').unwrap_or(&self.path) {
            "" => String::new(),
            query if query.starts_with('?') => query.to_owned(),
            path => format!("/{path}"),
        };
        let answer = HostClient::new(self.listen, None)?
            .send(method, &format!("/r/{}{path}", self.route), headers, body.into())
            .await?;
        out!("{}", answer.status());
        for (name, value) in answer.headers() {
            out!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        out!();
        out!("{}", String::from_utf8_lossy(answer.body()));
        Ok(if answer.status().is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
