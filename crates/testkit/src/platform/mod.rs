//! Stand-ins for UAA and the Cloud Controller, with everything that can go wrong with them.
//!
//! A [`PlatformStub`] serves, on ports of loopback and with the test CA's certificates:
//!
//! - UAA over HTTPS: `POST /check_token` and `POST /oauth/token` with basic authentication, `GET /token_keys`;
//! - the Cloud Controller over HTTPS with client certificates: `GET /internal/v4/log_access/<id>`,
//!   `GET /v3/service_instances/<id>` and `GET /v3/apps`; the same again over plain HTTP, as its external address.
//!
//! Tokens are opaque ([`PlatformStub::grant`]) or JWTs signed with RS256 ([`PlatformStub::issue`]); keys rotate
//! ([`PlatformStub::rotate`]). Each endpoint can be made slow or wrong at any time ([`PlatformStub::set_fault`]) and counts
//! its calls by token.

mod apps;
mod control;
mod fault;
mod keys;
mod server;
mod state;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use loggregator_net::http::{Server, Settings};
use loggregator_net::{Profile, ServerTls};
use loggregator_service::Lifecycle;
use serde_json::Value;
use traffic_controller::access::{PlatformConfig, Secret};

pub use apps::App;
pub use control::Control;
pub use fault::{Endpoint, Fault, Mode};
pub use keys::Rotation;
pub use state::{Calls, Grant};

use crate::Certs;
use server::{Capi, Uaa};
use state::State;

/// The UAA client that may check tokens.
pub const CLIENT_ID: &str = "doppler";
/// Its secret.
pub const CLIENT_SECRET: &str = "stub-client-secret";
/// The user who may ask for a token with the password grant.
pub const USER: &str = "operator";
/// Its password.
pub const PASSWORD: &str = "stub & password";
/// The issuer of signed tokens.
pub const ISSUER: &str = "https://uaa.stub/oauth/token";
/// The name in the Cloud Controller's certificate.
pub const CAPI_NAME: &str = "cloud-controller";

/// UAA and Cloud Controller, running until their lifecycle stops.
#[derive(Clone)]
pub struct PlatformStub {
    /// UAA's address.
    pub uaa_url: String,
    /// The Cloud Controller's internal address.
    pub capi_url: String,
    /// Its external address: plain HTTP.
    pub capi_external_url: String,
    state: Arc<State>,
}

impl PlatformStub {
    /// Starts both as tasks of `lifecycle`.
    ///
    /// # Errors
    /// When a port or a certificate cannot be used.
    pub fn start(certs: &Certs, lifecycle: &Lifecycle) -> Result<Self> {
        let state = Arc::new(State::new()?);
        let uaa = certs.tls("uaa");
        let uaa_tls = ServerTls::server_only(&uaa.cert, &uaa.key, Profile::Http)?;
        let capi_tls = ServerTls::mutual(&certs.tls(CAPI_NAME), Profile::Http)?;
        let serve = |task: &'static str, tls, handler| -> Result<String> {
            let server = Server::bind("127.0.0.1:0".parse()?).context("the stub's port")?;
            let addr = server.local_addr();
            lifecycle.spawn(
                task,
                server.serve(tls, handler, Settings::default(), lifecycle.token()),
            );
            Ok(addr.to_string())
        };
        let capi = Arc::new(Capi(Arc::clone(&state)));
        let uaa = serve("stub UAA", Some(uaa_tls), Arc::new(Uaa(Arc::clone(&state))))?;
        let internal = serve(
            "stub Cloud Controller",
            Some(capi_tls),
            Arc::clone(&capi) as _,
        )?;
        let external = serve("stub external Cloud Controller", None, capi)?;
        Ok(Self {
            uaa_url: format!("https://{uaa}"),
            capi_url: format!("https://{internal}"),
            capi_external_url: format!("http://{external}"),
            state,
        })
    }

    /// What a traffic controller or a gateway needs to ask these; it shows the certificate `trafficcontroller`.
    pub fn config(&self, certs: &Certs) -> PlatformConfig {
        PlatformConfig {
            uaa_url: self.uaa_url.clone(),
            uaa_ca: certs.ca(),
            uaa_client: CLIENT_ID.to_owned(),
            uaa_secret: Secret::new(CLIENT_SECRET),
            capi_url: self.capi_url.clone(),
            capi_external_url: Some(self.capi_external_url.clone()),
            capi_tls: certs.tls("trafficcontroller"),
            capi_server_name: CAPI_NAME.to_owned(),
            ..PlatformConfig::default()
        }
    }

    /// Makes a token known, or changes what it may.
    pub fn grant(&self, token: &str, grant: Grant) {
        self.state.grant(token, grant);
    }

    /// A token is unknown from now on, as if it had been revoked.
    pub fn forget(&self, token: &str) {
        self.state.forget(token);
    }

    /// A JWT with this grant, signed with the newest key. Members of `claims` are added, override, or with `null`
    /// remove the usual ones.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn issue(&self, grant: Grant, claims: &Value) -> Result<String> {
        self.state.issue(grant, claims)
    }

    /// Any header and claims, signed with the newest key. Nobody knows this token, but its signature is good.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        self.state.keys.lock().sign(header, claims)
    }

    /// The id of the newest key.
    pub fn key_id(&self) -> String {
        self.state.keys.lock().newest().0.clone()
    }

    /// Makes a new key.
    ///
    /// # Errors
    /// When none can be made.
    pub fn rotate(&self, how: Rotation) -> Result<()> {
        self.state.keys.lock().rotate(how)
    }

    /// Makes an endpoint slow or wrong, or well again with the default.
    pub fn set_fault(&self, endpoint: Endpoint, fault: Fault) {
        self.state.faults.lock().insert(endpoint, fault);
    }

    /// The apps that the Cloud Controller knows from now on.
    pub fn set_apps(&self, apps: Vec<App>) {
        *self.state.apps.lock() = apps;
    }

    /// For how many seconds the tokens are good that are asked for from now on.
    pub fn set_token_life(&self, seconds: i64) {
        *self.state.token_life.lock() = seconds;
    }

    /// Calls of an endpoint with this token.
    pub fn calls(&self, endpoint: Endpoint, token: &str) -> u64 {
        self.state.calls.lock().of(endpoint, token)
    }

    /// All calls so far.
    pub fn all_calls(&self) -> Calls {
        self.state.calls.lock().clone()
    }

    /// Forgets the calls so far.
    pub fn reset_calls(&self) {
        *self.state.calls.lock() = Calls::default();
    }

    /// Serves the control port, see [`Control`]; returns its address, `http://…`.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn serve_control(&self, lifecycle: &Lifecycle) -> Result<String> {
        let server = Server::bind("127.0.0.1:0".parse()?).context("the control port")?;
        let url = format!("http://{}", server.local_addr());
        let handler = Arc::new(control::Port(self.clone()));
        lifecycle.spawn(
            "stub control",
            server.serve(None, handler, Settings::default(), lifecycle.token()),
        );
        Ok(url)
    }
}
