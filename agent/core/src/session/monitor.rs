//! Watching memory and disk.

use std::time::{Duration, SystemTime};

use adit_messages::agent;
use adit_messages::agent::push_resources_monitoring_usage_request::Datapoint as ProtoPoint;
use adit_messages::agent::push_resources_monitoring_usage_request::datapoint::{
    MemoryUsage, VolumeUsage,
};
use adit_messages::time::timestamp_to_proto;

use super::{Ended, Session, call};
use crate::resources::{Datapoint, Usage, Window, disk, memory};

impl Session {
    /// Asks what to watch, then samples and pushes.
    pub(super) async fn monitor(&self) -> Ended {
        let request = agent::GetResourcesMonitoringConfigurationRequest {};
        let answer = self
            .rpc
            .get_resources_monitoring_configuration(&request)
            .await;
        let answer = call("GetResourcesMonitoringConfiguration", answer)?;
        let config = answer.config.unwrap_or_default();
        let interval = u64::try_from(config.collection_interval_seconds).unwrap_or(0);
        let size = usize::try_from(config.num_datapoints).unwrap_or(0);
        if interval == 0 || size == 0 {
            return Ok(());
        }
        let with_memory = answer.memory.is_some_and(|m| m.enabled);
        let volumes: Vec<String> = answer
            .volumes
            .into_iter()
            .filter(|v| v.enabled)
            .map(|v| v.path)
            .collect();
        let mut window = Window::new(size);
        loop {
            tokio::time::sleep(Duration::from_secs(interval)).await;
            let point = sample(with_memory, volumes.clone()).await;
            if let Some(points) = window.handle_sample(point) {
                let request = agent::PushResourcesMonitoringUsageRequest {
                    datapoints: points.into_iter().map(to_proto).collect(),
                };
                if let Err(error) = self.rpc.push_resources_monitoring_usage(&request).await {
                    tracing::debug!(%error, "resource use was refused");
                }
            }
        }
    }
}

async fn sample(with_memory: bool, volumes: Vec<String>) -> Datapoint {
    let at = SystemTime::now();
    let empty = Datapoint {
        at,
        memory: None,
        volumes: Vec::new(),
    };
    if !with_memory && volumes.is_empty() {
        return empty;
    }
    let measured = tokio::task::spawn_blocking(move || Datapoint {
        at,
        memory: with_memory.then(memory).flatten(),
        volumes: volumes
            .into_iter()
            .filter_map(|path| disk(&path).map(|usage| (path, usage)))
            .collect(),
    });
    measured.await.unwrap_or(empty)
}

fn to_proto(point: Datapoint) -> ProtoPoint {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    ProtoPoint {
        collected_at: Some(timestamp_to_proto(point.at)),
        memory: point.memory.map(|Usage { used, total }| MemoryUsage {
            used: count(used),
            total: count(total),
        }),
        volumes: point
            .volumes
            .into_iter()
            .map(|(volume, Usage { used, total })| VolumeUsage {
                volume,
                used: count(used),
                total: count(total),
            })
            .collect(),
    }
}
