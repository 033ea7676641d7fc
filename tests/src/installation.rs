//! The whole of it: a cluster's double, the registry, and the Kubernetes component between them, with the roles and the
//! `APIService` of `deploy/`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::client::Client;
use crate::cluster::{Cluster, User};
use crate::front_proxy::{FrontProxy, Settings};
use crate::kapi::{self, Kapi, SERVER_NAME};
use crate::kubectl::Kubectl;
use crate::private_tls::{PrivateTls, private_address};
use crate::server::{Launch, Server};
use crate::{eventually, manifests};

/// The namespace that the installation is in.
pub const NAMESPACE: &str = "d8-payload-registry";

/// The group and version that the component serves.
pub const GROUP_VERSION: &str = "payload-registry.deckhouse.io/v1alpha1";

/// A cluster with a registry. Dropping it ends everything.
#[derive(Debug)]
pub struct Installation {
    /// The component.
    pub kapi: Kapi,
    /// The registry.
    pub server: Server,
    /// The cluster.
    pub cluster: Cluster,
    /// What component and registry speak TLS with; `None`: they have a socket.
    pub tls: Option<PrivateTls>,
}

impl Installation {
    /// Starts all of it.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments for the component.
    #[track_caller]
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_over(None, args)
    }

    /// The same, where component and registry speak TLS to each other, with these files.
    #[track_caller]
    pub fn start_over_tls(files: PrivateTls) -> Self {
        Self::start_over(Some(files), &[])
    }

    #[track_caller]
    fn start_over(tls: Option<PrivateTls>, args: &[&str]) -> Self {
        let cluster = Cluster::start();
        cluster.create_namespace(NAMESPACE);
        for file in ["service-account.yaml", "component-rbac.yaml", "user-roles.yaml"] {
            for object in manifests::read(file) {
                cluster.apply(object);
            }
        }
        let launch = Launch::new().config("kubernetes: {enabled: true}");
        let mut args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let (server, registry) = match &tls {
            Some(files) => {
                let server = files.launch(launch).start();
                args.extend(files.component_args());
                let address = private_address(&server).to_string();
                (server, address)
            }
            None => {
                let server = launch.start();
                let socket = server.root().join("private.sock");
                (server, format!("unix:{}", socket.display()))
            }
        };
        let launch = kapi::Launch {
            registry,
            kubeconfig: cluster.kubeconfig(&User::service_account(NAMESPACE, "payload-registry")),
            listen: "127.0.0.1:0".into(),
            args,
        };
        let kapi = launch.start();
        let installation = Self { kapi, server, cluster, tls };
        installation.trust(&installation.kapi.authority().pem());
        installation.route();
        installation.wait();
        installation
    }

    /// Writes the authorities (PEM) into the `APIService` that the component's certificate is from.
    pub fn trust(&self, authorities: &str) {
        let mut api_service = manifests::object("APIService", "v1alpha1.payload-registry.deckhouse.io");
        api_service["spec"]["caBundle"] = BASE64_STANDARD.encode(authorities).into();
        self.cluster.apply(api_service);
    }

    /// Tells the cluster where the component is now.
    pub fn route(&self) {
        self.cluster.route(NAMESPACE, "payload-registry", self.kapi.address());
    }

    /// Waits until the component has read from the cluster what it needs, and the registry has been told.
    #[track_caller]
    pub fn wait(&self) {
        let request = crate::http::Request::new("GET", "/readyz?verbose");
        eventually("the component has read all and is heard", || {
            let response = self.direct().try_send(&request).ok()?;
            let text = String::from_utf8_lossy(&response.body);
            (response.status == 200 && !text.contains("[-]")).then_some(())
        });
    }

    /// A way to the component past the cluster: with the front proxy's certificate, and whatever headers one likes.
    pub fn direct(&self) -> FrontProxy {
        FrontProxy::new(self.way_in())
    }

    /// What that way is made of, to be changed.
    pub fn way_in(&self) -> Settings {
        Settings {
            address: self.kapi.address(),
            server_name: SERVER_NAME.into(),
            trust: self.kapi.authority().pem(),
            certificate: Some(self.cluster.front_proxy_certificate()),
            is_http2: true,
        }
    }

    /// `kubectl`, as somebody.
    pub fn kubectl(&self, user: &User) -> Kubectl {
        Kubectl::new(self.cluster.kubeconfig(user))
    }

    /// A registry client that logs in with a token of somebody.
    pub fn client(&self, user: &User) -> Client {
        self.server.client().with_basic("token", &self.cluster.token(user))
    }

    /// Somebody who may do everything in a namespace, which is made.
    #[track_caller]
    pub fn owner(&self, namespace: &str) -> User {
        self.cluster.create_namespace(namespace);
        let user = User::new(&format!("owner-of-{namespace}"), &[]);
        self.cluster.grant(namespace, "owner", &user, &["*"], &[]);
        let client = self.client(&user);
        // A namespace and a rule that were made just now are known a moment later.
        eventually("the namespace takes a push", || {
            let opened = client.try_send(
                crate::http::Request::new("POST", format!("/v2/{namespace}/wait/blobs/uploads/")).body(""),
            );
            let opened = opened.ok().filter(|response| response.status == 202)?;
            client.delete(crate::client::location(&opened)).expect(204);
            Some(())
        });
        user
    }
}
