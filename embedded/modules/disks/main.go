// The disks of an embedded cluster: a CSI driver whose volumes are files on the machine, attached to nodes as loop
// devices. A file system on one is as large as the volume, and the volume goes to whichever node needs it.
//
// One process is the controller, which makes, copies, grows and attaches volumes (controller.go); with --node it is a
// node's part, which mounts them there (node.go) and makes itself known to the kubelet (registration.go).
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const driver = "disks.clusterproof.dev"

// What the driver says that it is, and speaks: the first version of the specification, which all later ones include.
const version = "1.0.0"

func main() {
	folder := flag.String("disks", "", "Folder of all volumes, the same one for the controller and every node.")
	socket := flag.String("socket", "", "Path of the socket to serve.")
	name := flag.String("node", "", "Name of the node whose part this is; without it, it is the controller.")
	registry := flag.String("registry", "", "Folder in which a node's kubelet looks for sockets of drivers.")
	flag.Parse()

	server := grpc.NewServer(grpc.UnaryInterceptor(told))
	csi.RegisterIdentityServer(server, identity{})
	volumes := rack(*folder)
	if *name == "" {
		if err := volumes.prepare(); err != nil {
			log.Fatal(err)
		}
		csi.RegisterControllerServer(server, &controller{volumes: volumes})
	} else {
		csi.RegisterNodeServer(server, newNode(*name, volumes))
	}
	listener, err := listen(*socket)
	if err != nil {
		log.Fatal(err)
	}
	if *name != "" {
		go func() { log.Fatal(register(*registry, *socket)) }()
	}
	log.Fatal(server.Serve(listener))
}

// listen takes a socket, from whoever had it before.
func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", socket)
}

// told logs every call that fails.
func told(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	answer, err := next(ctx, request)
	if err != nil {
		log.Printf("%s(%v): %v", info.FullMethod, request, err)
	}
	return answer, err
}

type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driver, VendorVersion: version}, nil
}

func (identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (identity) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	type capability = csi.PluginCapability
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*capability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}
