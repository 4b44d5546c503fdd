"""Where pods run: what is wrong with that, and what has no effect there, is said."""

from __future__ import annotations

import pytest

from k8sfutures.config import Settings
from k8sfutures.errors import SettingValueError
from k8sfutures.pods import selection
from k8sfutures.pods.selection import check_kubeconfig, pod_source


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    monkeypatch.setattr(selection, "_told", set())


def test_settings_that_have_no_effect_on_local_pods_are_warned_of_once(caplog):
    for _ in range(2):
        pod_source(Settings(memory="1Gi", cpu=2), "local", "pool").close()
    (record,) = caplog.records
    assert record.getMessage() == (
        "these settings have no effect on local pods, which are ordinary processes of this "
        "machine: cpu, memory"
    )
    pod_source(Settings(memory="1Gi"), "local", "pool").close()
    assert "this setting has no effect on local pods" in caplog.records[1].getMessage()
    pod_source(Settings(worker_processes=1), "local", "pool").close()
    assert len(caplog.records) == 2


def test_kubeconfigs_that_are_not_there_do_not_choose_kubernetes(tmp_path):
    words = "KUBECONFIG='/no/such' says that pods run on Kubernetes, and there is no such file"
    with pytest.raises(SettingValueError, match=words) as caught:
        check_kubeconfig(Settings(), {"KUBECONFIG": "/no/such"})
    assert "pods='local'" in str(caught.value)
    with pytest.raises(SettingValueError, match=r"^kubeconfig='/no/such' says"):
        check_kubeconfig(Settings(kubeconfig="/no/such"), {"KUBECONFIG": str(tmp_path)})
    check_kubeconfig(Settings(), {"KUBECONFIG": f"/no/such:{tmp_path}"})
    check_kubeconfig(Settings(), {})


def test_where_kubernetes_was_chosen_warm_pods_need_no_kubeconfig(monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/no/such")
    url = "amqp://me:secret@broker.example/"
    pod_source(Settings(pods="kubernetes", amqp_url=url), "kubernetes", "pool")
    with pytest.raises(SettingValueError, match="no such file"):
        pod_source(Settings(amqp_url=url), "kubernetes", "pool")
