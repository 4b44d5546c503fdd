"""Pods on Kubernetes: one Job for each, made to fit what the nodes have free.

``source`` (the provisioning thread's) decides with the pure ``capacity``, ``placement``, ``room``,
``roster`` and ``stories``, writes with ``manifests``, and asks through ``api``, the only importer
of the Kubernetes client; ``watcher`` is a thread of its own that hears how pods fare::

    ensure() ── nodes, pods, Jobs ─► survey ─► placement ─► manifests ─► Jobs, Secret
    watch()  ◄── watcher ◄── pods ── stories ─► PodEnded, StartupNews for the manager
"""
