//! The memory transport passes the suite, within one process and through its socket.

pub(crate) mod memory {
    use commissaire::testkit::{Failure, Target};

    pub(crate) async fn target() -> Result<Target, Failure> {
        Ok(Target::in_process(commissaire_memory::DRIVER, "memory://"))
    }

    commissaire::conformance!(target, commissaire_memory::DRIVER.promises);
}

pub(crate) mod unix {
    use std::sync::Arc;

    use commissaire::{
        BusOptions,
        testkit::{Failure, Target},
    };

    pub(crate) async fn target() -> Result<Target, Failure> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("bus.sock");
        let uri = format!("memory://?listen={}", path.display());
        let host = (commissaire_memory::DRIVER.connect)(uri.parse()?, BusOptions::default()).await?;
        let kept = Arc::new((host, dir));
        Ok(Target::new(move |options| {
            let (kept, uri) = (kept.clone(), format!("unix://{}", path.display()).parse());
            Box::pin(async move {
                let bus = (commissaire_memory::UNIX_DRIVER.connect)(uri?, options).await;
                drop(kept);
                bus
            })
        }))
    }

    commissaire::conformance!(target, commissaire_memory::UNIX_DRIVER.promises);
}
