//! nginx and HAProxy in front of the same sink, told to try again what failed: what many use for want of a host that
//! retries. Neither writes an access log.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Kind, installed, text};

/// The command that runs it from `folder`; none when it is not installed.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn command(
    kind: Kind,
    folder: &Path,
    listen: SocketAddr,
    sink: SocketAddr,
) -> anyhow::Result<Option<Command>> {
    let (name, configuration) = match kind {
        Kind::Nginx => ("nginx", nginx(folder, listen, sink)),
        _ => ("haproxy", haproxy(listen, sink)),
    };
    let Some(program) = installed(name) else { return Ok(None) };
    let file = folder.join(format!("{name}.conf"));
    fs::write(&file, configuration)?;
    let mut command = Command::new(program);
    match kind {
        Kind::Nginx => command.args(["-p", &text(folder), "-e", "stderr", "-c", &text(&file)]),
        _ => command.args(["-db", "-f", &text(&file)]),
    };
    Ok(Some(command))
}

/// It retries on the next server of a group, so the one sink is named three times.
fn nginx(folder: &Path, listen: SocketAddr, sink: SocketAddr) -> String {
    // Started by root it gives its workers away to a user who may not enter a private folder.
    let user = if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        "user root;"
    } else {
        ""
    };
    let folder = folder.display();
    format!(
        "{user}
daemon off;
worker_processes auto;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream sink {{
        server {sink} max_fails=0;
        server {sink} max_fails=0;
        server {sink} max_fails=0;
        keepalive 64;
        keepalive_requests 1000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://sink;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_next_upstream error timeout http_502 http_503 http_504 non_idempotent;
            proxy_next_upstream_tries 3;
        }}
    }}
}}
"
    )
}

fn haproxy(listen: SocketAddr, sink: SocketAddr) -> String {
    format!(
        "global
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 30s
    option http-buffer-request
    http-reuse always
    retries 3
    retry-on all-retryable-errors
frontend callers
    bind {listen}
    default_backend sink
backend sink
    server sink {sink}
"
    )
}
