"""The container runtime cannot give the container a GPU."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class ContainerWithoutGpu(Check):
    """The container runtime cannot give the container a GPU.

    ## What it finds

    In a log: docker, containerd and NVIDIA's container runtime that know no GPU driver, no runtime
    called nvidia or no such device; Kubernetes that has no node with a free one.

    ## Why it breaks

    docker hands `--gpus` to NVIDIA's container toolkit. Where that is not installed, not configured, or
    asked for a device that does not exist, the container does not start.

    ## How it is proven

    By the log alone.

    ## Fix

    Install and configure the NVIDIA container toolkit on the host; ask for devices that exist.

    ## References

    - https://github.com/NVIDIA/libnvidia-container/issues/256
    - https://github.com/NVIDIA/nvidia-docker/issues/1203
    - https://github.com/vllm-project/vllm/issues/27268
    """

    name = "container-without-gpu"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/NVIDIA/libnvidia-container/issues/256"
    symptoms = (
        Symptom(
            pattern=r"could not select device driver",
            example='docker: Error response from daemon: could not select device driver "" with '
            "capabilities: [[gpu]].",
            counter_example="Error response from daemon: pull access denied",
            cause="docker knows no driver for GPUs: NVIDIA's container toolkit is not installed "
            "or not configured",
        ),
        Symptom(
            pattern=r"(?:unknown or invalid runtime name|Unknown runtime specified):? `?nvidia",
            example="docker: Error response from daemon: unknown or invalid runtime name: nvidia.",
            counter_example="Unknown runtime specified runsc",
            cause="docker knows no runtime called nvidia",
        ),
        Symptom(
            pattern=r"nvidia-container-runtime(?:-hook)?`?: executable file not found",
            example='exec: "nvidia-container-runtime-hook": executable file not found in $PATH',
            counter_example="nvidia-container-runtime version 1.14",
            cause="NVIDIA's container toolkit is not installed",
        ),
        Symptom(
            pattern=r"nvidia-container-cli: device error: (?P<what>[^\n]{1,80}?)(?::? unknown\b|"
            r"$|\n)",
            example="nvidia-container-cli: device error: 2: unknown device: unknown",
            counter_example="nvidia-container-cli: initialization error: nvml error: driver not loaded",
            cause="A GPU was asked for that this host does not have: {what}",
        ),
        Symptom(
            pattern=r"nvidia-container-cli(?:\.real)?: (?P<what>(?:mount|container|ldcache|"
            r"permission|detection|input) error: [^\n]{1,120})",
            example="nvidia-container-cli: mount error: failed to add device rules: unable to "
            "find any existing device filters",
            counter_example="nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.5",
            cause="NVIDIA's container runtime failed: {what}",
        ),
        Symptom(
            pattern=r"nvidia-container-cli(?:\.real)?: initialization error:(?! nvml error| load "
            r"library)(?P<what>[^\n]{1,120})",
            example="nvidia-container-cli: initialization error: cuda error: no cuda-capable "
            "device is detected",
            counter_example="nvidia-container-cli: initialization error: nvml error: driver not loaded",
            cause="NVIDIA's container runtime could not begin: {what}",
        ),
        Symptom(
            pattern=r"nvidia-container-cli: requirement error:(?! "
            r"unsatisfied)(?P<what>[^\n]{1,120})",
            example="nvidia-container-cli: requirement error: invalid expression",
            counter_example="nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.5",
            cause="The image asks for what this host does not have: {what}",
        ),
        Symptom(
            pattern=r"unresolvable CDI devices (?P<device>[\w./=:,-]{1,80})",
            example="failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=all",
            counter_example="CDI devices were injected",
            cause="The container runtime knows no device {device}: there is no CDI "
            "specification, or an old one",
            fixes=(
                remedy(
                    "write the specification", "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
                ),
            ),
        ),
        Symptom(
            pattern=r"Insufficient (?P<resource>nvidia\.com/[\w.-]{2,40})",
            example="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            counter_example="Insufficient memory",
            cause="No node of the cluster has a free {resource}",
            fixes=(
                remedy(
                    "see what the nodes have and what is taken",
                    "kubectl describe nodes | grep -A8 -i nvidia.com",
                ),
                remedy("install NVIDIA's device plugin, where the nodes show none"),
            ),
        ),
    )
    remedies = (
        remedy(
            "install and configure the container toolkit on the host",
            "sudo apt-get install nvidia-container-toolkit && sudo nvidia-ctk runtime configure "
            "--runtime=docker && sudo systemctl restart docker",
        ),
        remedy("then try it", "docker run --rm --gpus all ubuntu nvidia-smi"),
        remedy("ask for devices that `nvidia-smi -L` lists", "docker run --gpus '\"device=0,1\"' ..."),
    )
