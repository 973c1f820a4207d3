package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"
)

// node makes volumes usable on one node: staged once, with a file system where one is asked for, and published to each
// pod. One call at a time changes something.
type node struct {
	csi.UnimplementedNodeServer
	name    string
	volumes rack
	mounter *mount.SafeFormatAndMount
	resizer *mount.ResizeFs
	changes sync.Mutex
}

func newNode(name string, volumes rack) *node {
	programs := exec.New()
	mounter := mount.NewSafeFormatAndMount(mount.New(""), programs)
	return &node{name: name, volumes: volumes, mounter: mounter, resizer: mount.NewResizeFs(programs)}
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (n *node) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, each := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		rpc := &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: each}}
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{Type: rpc})
	}
	return answer, nil
}

func (n *node) NodeStageVolume(
	_ context.Context, request *csi.NodeStageVolumeRequest,
) (*csi.NodeStageVolumeResponse, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	path, forSeveral, err := n.volumes.find(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if forSeveral {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if there := n.volumes.read(request.GetVolumeId(), attached); there != n.name {
		return nil, status.Errorf(codes.FailedPrecondition, "the volume is attached to node %q, not to %s", there, n.name)
	}
	device, err := attach(path)
	if err != nil {
		return nil, err
	}
	kind := request.GetVolumeCapability().GetMount()
	if kind == nil {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	staging := request.GetStagingTargetPath()
	mounted, err := n.mounter.IsMountPoint(staging)
	if err != nil {
		return nil, err
	}
	// xfs, which grows while it is mounted also where root lacks CAP_SYS_RESOURCE. A copy has the identity of what it was
	// copied from, which may be mounted, too.
	options := append([]string{"nouuid"}, kind.GetMountFlags()...)
	if !mounted {
		if err := n.mounter.FormatAndMount(device, staging, "xfs", options); err != nil {
			return nil, err
		}
	}
	_, err = n.resizer.Resize(device, staging) // it may be a copy of a smaller one
	return &csi.NodeStageVolumeResponse{}, err
}

func (n *node) NodeUnstageVolume(
	_ context.Context, request *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	if err := mount.CleanupMountPoint(request.GetStagingTargetPath(), n.mounter, true); err != nil {
		return nil, err
	}
	path, forSeveral, err := n.volumes.find(request.GetVolumeId())
	if err != nil || forSeveral {
		return &csi.NodeUnstageVolumeResponse{}, nil // there is nothing to detach
	}
	if there := n.volumes.read(request.GetVolumeId(), attached); there != "" && there != n.name {
		return &csi.NodeUnstageVolumeResponse{}, nil // it was forced to go, and the device is now another node's
	}
	return &csi.NodeUnstageVolumeResponse{}, detach(path)
}

func (n *node) NodePublishVolume(
	_ context.Context, request *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	path, forSeveral, err := n.volumes.find(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	target, from := request.GetTargetPath(), request.GetStagingTargetPath()
	if forSeveral {
		from = path
	}
	if request.GetVolumeCapability().GetBlock() != nil {
		if from, err = attach(path); err != nil {
			return nil, err
		}
		err = touch(target)
	} else {
		err = os.MkdirAll(target, 0o750)
	}
	if err != nil {
		return nil, err
	}
	if mounted, err := n.mounter.IsMountPoint(target); err != nil || mounted {
		return &csi.NodePublishVolumeResponse{}, err
	}
	options := []string{"bind"}
	if request.GetReadonly() {
		options = append(options, "ro")
	}
	return &csi.NodePublishVolumeResponse{}, n.mounter.Mount(from, target, "", options)
}

func (n *node) NodeUnpublishVolume(
	_ context.Context, request *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	return &csi.NodeUnpublishVolumeResponse{}, mount.CleanupMountPoint(request.GetTargetPath(), n.mounter, true)
}

func (n *node) NodeExpandVolume(
	_ context.Context, request *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	path, forSeveral, err := n.volumes.find(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if forSeveral {
		return &csi.NodeExpandVolumeResponse{}, nil
	}
	device, err := attach(path)
	if err != nil {
		return nil, err
	}
	if _, err := losetup("--set-capacity", device); err != nil {
		return nil, err
	}
	if request.GetVolumeCapability().GetBlock() == nil {
		if _, err := n.resizer.Resize(device, request.GetVolumePath()); err != nil {
			return nil, err
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: request.GetCapacityRange().GetRequiredBytes()}, nil
}

// attach gives a file its loop device, the one that it has already if there is one.
func attach(path string) (string, error) {
	devices, err := devicesOf(path)
	if err != nil {
		return "", err
	}
	if len(devices) > 0 {
		return devices[0], nil
	}
	return losetup("--find", "--show", path)
}

// detach frees a file, or a device, of the devices that stand for it. A kubelet keeps one that a pod has as a device
// open by another one upon it, and leaves that behind when its node is switched off.
func detach(path string) error {
	devices, err := devicesOf(path)
	for _, device := range devices {
		if err := detach(device); err != nil {
			return err
		}
		if _, err := losetup("--detach", device); err != nil {
			return err
		}
	}
	return err
}

func devicesOf(path string) ([]string, error) {
	said, err := losetup("--associated", path, "--noheadings", "--output", "NAME")
	return strings.Fields(said), err
}

func losetup(arguments ...string) (string, error) {
	said, err := exec.New().Command("losetup", arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("losetup %s: %w: %s", strings.Join(arguments, " "), err, said)
	}
	return strings.TrimSpace(string(said)), nil
}

// touch makes an empty file, with its folder.
func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	return file.Close()
}
