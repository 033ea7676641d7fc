//! `payload-registry-kapi`: the Kubernetes component of payload-registry.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, pending};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use kapi::api::{Api, Lifecycle, Limits, Phase, serve};
use kapi::cluster::{self, Readiness};
use kapi::logging;
use kapi::registry::{Address, Registry};
use kapi::settings::{FrontProxyFlags, LogFlags, RegistryFlags, Settings};
use kapi::tls::{
    ClientCertificate, Files, FrontProxy, FrontProxyConfig, InvalidFrontProxy, ServingCertificate,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::crypto::ring;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What goes on beside the rest until the program ends.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Errors here are sentences for whoever started the program.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    match run(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payload-registry-kapi: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings) -> Result<()> {
    let LogFlags { log_level, log_format } = &settings.log;
    logging::start(log_level, *log_format)
        .map_err(|error| format!("--log-level {log_level:?} cannot be used: {error}"))?;
    // Where a client of the cluster asks for the provider of the process, there is one. It fails where there is one already.
    let _ = ring::default_provider().install_default();

    let (certificate, follow_certificate) =
        ServingCertificate::read(&settings.tls_cert_file, &settings.tls_key_file)
            .map_err(|error| format!("the serving certificate cannot be used: {error}"))?;
    let (front_proxy, follow_front_proxy) = front_proxy(&settings.front_proxy)?;
    let (registry, follow_registry) = registry(&settings.registry)?;
    let cluster_config = cluster_config(settings).await?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;

    let readiness = Arc::new(Readiness::default());
    let lifecycle = Lifecycle::new();
    let api = Arc::new(Api::new(
        registry.clone(),
        settings.registry.registry_host.as_str().to_owned(),
        front_proxy.clone(),
        readiness.clone(),
        lifecycle.clone(),
    ));
    let is_told_by_the_cluster = settings.front_proxy.requestheader_client_ca_file.is_none();
    let cluster = cluster::run(
        cluster_config,
        registry,
        settings.cluster_settings(),
        is_told_by_the_cluster.then_some(front_proxy),
        readiness,
    );
    let limits = Limits { drain: settings.drain(), grace: settings.grace() };
    println!("listening on https://{}", listener.local_addr().unwrap_or(settings.listen));
    tokio::select! {
        served = serve(api, listener, certificate, &lifecycle, limits) => Ok(served?),
        ended = cluster => match ended? {},
        ended = follow_signals(&lifecycle) => match ended? {},
        () = async { tokio::join!(follow_certificate, follow_front_proxy, follow_registry); } => {
            Err("the files of certificates are no longer followed".into())
        }
    }
}

/// Who the front proxy is, as the flags say; where they do not, nobody until the cluster says it.
fn front_proxy(flags: &FrontProxyFlags) -> Result<(FrontProxy, Task)> {
    let front_proxy = FrontProxy::new();
    let Some(authorities) = &flags.requestheader_client_ca_file else {
        return Ok((front_proxy, Box::pin(pending())));
    };
    let files = Files::read([authorities.as_path()])?;
    let flags = flags.clone();
    let config = move |[authorities]: &[Vec<u8>; 1]| {
        FrontProxyConfig::new(
            authorities,
            flags.requestheader_allowed_names.clone(),
            &flags.requestheader_username_headers,
            &flags.requestheader_group_headers,
            &flags.requestheader_extra_headers_prefix,
        )
    };
    let first = config(files.contents())
        .map_err(|error| format!("the front proxy's flags cannot be used: {error}"))?;
    front_proxy.set(first);
    let followed = front_proxy.clone();
    let follow = files.follow(move |contents| {
        followed.set(config(contents)?);
        Ok::<_, InvalidFrontProxy>(())
    });
    Ok((front_proxy, Box::pin(follow)))
}

/// The registry, and what keeps the certificates for it current.
fn registry(flags: &RegistryFlags) -> Result<(Registry, Task)> {
    let address = flags.registry_address.as_str();
    if let Some(path) = address.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok((Registry::new(Address::Unix(path.into())), Box::pin(pending())));
    }
    let files = (&flags.registry_cert_file, &flags.registry_key_file, &flags.registry_ca_file);
    let (Some(certificate), Some(key), Some(authorities)) = files else {
        let message = "for a --registry-address that is no unix:<path>, give \
            --registry-ca-file, --registry-cert-file and --registry-key-file, too";
        return Err(message.into());
    };
    let (certificate, follow) = ClientCertificate::read(certificate, key, authorities)
        .map_err(|error| format!("the certificates for the registry cannot be used: {error}"))?;
    let address = Address::parse(address, certificate.source())
        .map_err(|error| format!("--registry-address cannot be used: {error}"))?;
    Ok((Registry::new(address), Box::pin(follow)))
}

async fn cluster_config(settings: &Settings) -> Result<kube::Config> {
    match &settings.cluster.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file)?;
            let config =
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            config
                .map_err(|error| format!("the kubeconfig {} cannot be used: {error}", file.display()).into())
        }
        None => kube::Config::infer().await.map_err(|error| {
            format!("there is no way to the cluster; give --kubeconfig, or run in a pod: {error}").into()
        }),
    }
}

/// The first signal begins the end; a second one cuts short what is waited for.
async fn follow_signals(lifecycle: &Lifecycle) -> Result<Infallible> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let next = if lifecycle.phase() == Phase::Serving { Phase::Draining } else { Phase::Ending };
        tracing::info!(phase = ?next, "a signal to end");
        lifecycle.enter(next);
    }
}
