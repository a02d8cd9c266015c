//! The same questions from the HTTP gateway, whose order and answers are others.

use loggregator_net::TlsFiles;
use loggregator_service::Lifecycle;
use loggregator_testkit::Certs;
use loggregator_testkit::platform::{Endpoint, Fault, Grant, Mode, PlatformStub};
use std::net::SocketAddr;
use traffic_controller::Access;
use traffic_controller::gateway::{Config, Logs, start};

use crate::rig::{APP, OTHER_APP, get};

struct Gateway {
    stub: PlatformStub,
    addr: SocketAddr,
    _certs: Certs,
    _lifecycle: Lifecycle,
}

impl Gateway {
    /// A gateway whose reverse log proxy is away: 503 means that a request was allowed.
    async fn start() -> Self {
        crate::log::capture();
        let (lifecycle, certs) = (Lifecycle::new(), Certs::generate().unwrap());
        let stub = PlatformStub::start(&certs, &lifecycle).unwrap();
        let tls: TlsFiles = certs.tls("client");
        let logs = Logs::Grpc {
            addr: "127.0.0.1:1".to_owned(),
            server_name: "reverselogproxy".to_owned(),
            tls,
        };
        let config = Config {
            addr: "127.0.0.1:0".parse().unwrap(),
            access: Access::Platform(Box::new(stub.config(&certs))),
            ..Config::new(logs)
        };
        let addr = start(config, &lifecycle).await.unwrap().addr;
        Self {
            stub,
            addr,
            _certs: certs,
            _lifecycle: lifecycle,
        }
    }

    async fn read(&self, query: &str, authorization: &str) -> u16 {
        let path = format!("/v2/read{query}");
        let headers = [("authorization", authorization)];
        get(self.addr, &path, &headers).await.status
    }
}

#[tokio::test]
async fn admins_read_everything_and_others_what_the_cloud_controller_shows_them() {
    let gateway = Gateway::start().await;
    let stub = &gateway.stub;
    stub.grant("admin", Grant::admin());
    let logs_admin = Grant {
        scopes: vec!["logs.admin".to_owned()],
        ..Grant::default()
    };
    stub.grant("logs", logs_admin);
    let dev = Grant {
        instances: vec![OTHER_APP.to_owned()],
        ..Grant::apps(&[APP])
    };
    stub.grant("dev", dev);
    let one = format!("?log&source_id={APP}");
    let two = format!("?log&source_id={APP}&source_id={OTHER_APP}");
    let stranger = "?log&source_id=99999999-2222-3333-4444-555555555555";

    // Not even a cookie helps here.
    let cookie = [("cookie", "authorization=bearer+admin")];
    assert_eq!(get(gateway.addr, "/v2/read?log", &cookie).await.status, 404);
    for token in ["bearer admin", "beareradmin", "admin", "bearer logs"] {
        assert_eq!(gateway.read("?log", token).await, 503, "{token}");
        assert_eq!(gateway.read(stranger, token).await, 503, "{token}");
    }
    assert_eq!(stub.all_calls().total(Endpoint::LogAccess), 0);
    for (query, token, status) in [
        ("?log", "bearer dev", 404),
        (one.as_str(), "bearer dev", 503),
        (two.as_str(), "bearer dev", 503),
        (stranger, "bearer dev", 404),
        ("?log&source_id=..%2F..%2Finfo", "bearer dev", 404),
        (one.as_str(), "bearer nobody", 404),
        // No admin because of the spelling; the Cloud Controller takes it, and there an admin sees all applications.
        ("?log", "Bearer admin", 404),
        (stranger, "Bearer admin", 503),
    ] {
        assert_eq!(gateway.read(query, token).await, status, "{query} {token}");
    }
    let asked = stub.all_calls().requests;
    assert!(!asked.iter().any(|line| line.contains("info")), "{asked:?}");
    let second = format!("GET /v3/service_instances/{OTHER_APP}");
    assert!(asked.contains(&second), "{asked:?}");
}

#[tokio::test]
async fn nobody_reads_when_uaa_or_the_cloud_controller_is_out_of_order() {
    let gateway = Gateway::start().await;
    let stub = &gateway.stub;
    let one = format!("?log&source_id={APP}");
    for (i, mode) in [Mode::Status(500), Mode::WrongJson, Mode::Close]
        .into_iter()
        .enumerate()
    {
        let token = format!("admin-{i}");
        stub.grant(&token, Grant::admin());
        stub.set_fault(Endpoint::CheckToken, mode.clone().into());
        let status = gateway.read(&one, &format!("bearer {token}")).await;
        assert_eq!(status, 404, "{mode:?}");
    }
    assert_eq!(stub.all_calls().total(Endpoint::LogAccess), 0);
    stub.set_fault(Endpoint::CheckToken, Fault::default());
    stub.grant("dev", Grant::apps(&[APP]));
    stub.set_fault(Endpoint::LogAccess, Mode::Close.into());
    assert_eq!(gateway.read(&one, "bearer dev").await, 404);
    assert_eq!(stub.all_calls().total(Endpoint::ServiceInstances), 0);
}
