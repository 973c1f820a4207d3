package main

import (
	"context"
	"os"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	mebibyte = 1 << 20
	smallest = 300 * mebibyte // that mkfs.xfs makes a file system on
	usual    = 1024 * mebibyte
)

// controller makes, copies, grows and attaches volumes. One call at a time changes something.
type controller struct {
	csi.UnimplementedControllerServer
	volumes rack
	changes sync.Mutex
}

func (c *controller) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, each := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		rpc := &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: each}}
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{Type: rpc})
	}
	return answer, nil
}

func (c *controller) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	c.changes.Lock()
	defer c.changes.Unlock()
	id := request.GetName()
	if !allowed.MatchString(id) {
		return nil, status.Errorf(codes.InvalidArgument, "a volume cannot be called %q", id)
	}
	size, err := wanted(request.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	answer := &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: id, CapacityBytes: size, ContentSource: request.GetVolumeContentSource(),
	}}
	several := forSeveral(request.GetVolumeCapabilities())
	if path, shared, err := c.volumes.find(id); err == nil {
		if shared != several || !shared && sizeOf(path) < size {
			return nil, status.Errorf(codes.AlreadyExists, "volume %s is there, but another one than is asked for", id)
		}
		if !shared {
			answer.Volume.CapacityBytes = sizeOf(path)
		}
		return answer, nil
	}
	if several {
		if request.GetVolumeContentSource() != nil || isBlock(request.GetVolumeCapabilities()) {
			return nil, status.Error(codes.InvalidArgument, "a volume for several nodes is an empty folder at first")
		}
		return answer, os.Mkdir(c.volumes.path(id, shared), 0o755)
	}
	from, err := c.contents(request.GetVolumeContentSource(), size)
	if err != nil {
		return nil, err
	}
	return answer, c.volumes.copy(from, c.volumes.path(id, disk), size)
}

// contents is the file that a new volume begins as; empty where it begins with nothing.
func (c *controller) contents(of *csi.VolumeContentSource, size int64) (string, error) {
	var path string
	switch {
	case of == nil:
		return "", nil
	case of.GetSnapshot() != nil:
		path = c.volumes.path(of.GetSnapshot().GetSnapshotId(), snapshot)
	default:
		path = c.volumes.path(of.GetVolume().GetVolumeId(), disk)
	}
	there, err := os.Stat(path)
	if err != nil {
		return "", status.Errorf(codes.NotFound, "what the volume is to begin with is not there: %v", err)
	}
	if there.Size() > size {
		return "", status.Errorf(codes.OutOfRange, "%d bytes do not hold the %d that it is to begin with", size, there.Size())
	}
	return path, nil
}

func (c *controller) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	c.changes.Lock()
	defer c.changes.Unlock()
	id := request.GetVolumeId()
	if !allowed.MatchString(id) {
		return &csi.DeleteVolumeResponse{}, nil // nothing was ever called that
	}
	if node := c.volumes.read(id, attached); node != "" {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to node %s", id, node)
	}
	// A node that was switched off has left its device behind.
	if _, err := os.Stat(c.volumes.path(id, disk)); err == nil {
		if err := detach(c.volumes.path(id, disk)); err != nil {
			return nil, err
		}
	}
	return &csi.DeleteVolumeResponse{}, c.volumes.remove(id, disk, shared)
}

func (c *controller) ControllerPublishVolume(
	_ context.Context, request *csi.ControllerPublishVolumeRequest,
) (*csi.ControllerPublishVolumeResponse, error) {
	c.changes.Lock()
	defer c.changes.Unlock()
	id, node := request.GetVolumeId(), request.GetNodeId()
	_, forSeveral, err := c.volumes.find(id)
	if err != nil {
		return nil, err
	}
	if forSeveral {
		return &csi.ControllerPublishVolumeResponse{}, nil
	}
	if other := c.volumes.read(id, attached); other != "" && other != node {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to node %s", id, other)
	}
	return &csi.ControllerPublishVolumeResponse{}, c.volumes.note(id, attached, node)
}

func (c *controller) ControllerUnpublishVolume(
	_ context.Context, request *csi.ControllerUnpublishVolumeRequest,
) (*csi.ControllerUnpublishVolumeResponse, error) {
	c.changes.Lock()
	defer c.changes.Unlock()
	id, node := request.GetVolumeId(), request.GetNodeId()
	if allowed.MatchString(id) && (node == "" || node == c.volumes.read(id, attached)) {
		return &csi.ControllerUnpublishVolumeResponse{}, c.volumes.remove(id, attached)
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

func (c *controller) ControllerExpandVolume(
	_ context.Context, request *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	c.changes.Lock()
	defer c.changes.Unlock()
	size, err := wanted(request.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	path, forSeveral, err := c.volumes.find(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if there, err := os.Stat(path); err != nil {
		return nil, err
	} else if !forSeveral && there.Size() < size {
		if err := os.Truncate(path, size); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: size, NodeExpansionRequired: !forSeveral}, nil
}

func (c *controller) CreateSnapshot(
	_ context.Context, request *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	c.changes.Lock()
	defer c.changes.Unlock()
	id, of := request.GetName(), request.GetSourceVolumeId()
	path, forSeveral, err := c.volumes.find(of)
	if err != nil {
		return nil, err
	}
	if !allowed.MatchString(id) || forSeveral {
		return nil, status.Errorf(codes.InvalidArgument, "no snapshot %q can be taken of %s", id, path)
	}
	if other := c.volumes.read(id, source); other != "" && other != of {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s is there, but of volume %s", id, other)
	}
	taken, err := os.Stat(c.volumes.path(id, snapshot))
	if err != nil {
		volume, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if err := c.volumes.note(id, source, of); err != nil {
			return nil, err
		}
		if err := c.volumes.copy(path, c.volumes.path(id, snapshot), volume.Size()); err != nil {
			return nil, err
		}
		if taken, err = os.Stat(c.volumes.path(id, snapshot)); err != nil {
			return nil, err
		}
	}
	return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{
		SnapshotId:     id,
		SourceVolumeId: of,
		SizeBytes:      taken.Size(),
		CreationTime:   timestamppb.New(taken.ModTime()),
		ReadyToUse:     true,
	}}, nil
}

func (c *controller) DeleteSnapshot(
	_ context.Context, request *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	c.changes.Lock()
	defer c.changes.Unlock()
	if !allowed.MatchString(request.GetSnapshotId()) {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	return &csi.DeleteSnapshotResponse{}, c.volumes.remove(request.GetSnapshotId(), snapshot, source)
}

func (c *controller) ValidateVolumeCapabilities(
	_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	_, several, err := c.volumes.find(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	answer := &csi.ValidateVolumeCapabilitiesResponse{}
	if asked := request.GetVolumeCapabilities(); several || !forSeveral(asked) {
		answer.Confirmed = &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: asked}
	}
	return answer, nil
}

// sizeOf is the size of a file in bytes; 0 where there is none.
func sizeOf(path string) int64 {
	there, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return there.Size()
}

// wanted is the size in bytes that a volume is to have, in whole MiB.
func wanted(span *csi.CapacityRange) (int64, error) {
	size := span.GetRequiredBytes()
	if size == 0 {
		size = usual
	}
	size = max(smallest, (size+mebibyte-1)/mebibyte*mebibyte)
	if limit := span.GetLimitBytes(); limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "%d bytes are more than the limit of %d", size, limit)
	}
	return size, nil
}

// forSeveral is whether several nodes may have the volume at a time.
func forSeveral(capabilities []*csi.VolumeCapability) bool {
	for _, each := range capabilities {
		switch each.GetAccessMode().GetMode() {
		case csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
			csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
			csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
			return true
		}
	}
	return false
}

func isBlock(capabilities []*csi.VolumeCapability) bool {
	for _, each := range capabilities {
		if each.GetBlock() != nil {
			return true
		}
	}
	return false
}
