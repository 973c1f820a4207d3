package main

import (
	"context"
	"log"
	"path/filepath"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar tells a kubelet where the driver's socket is.
type registrar struct {
	registration.UnsafeRegistrationServer
	endpoint string
}

// register answers a kubelet that finds the socket in the folder where it looks for drivers.
func register(registry, endpoint string) error {
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, &registrar{endpoint: endpoint})
	listener, err := listen(filepath.Join(registry, driver+".sock"))
	if err != nil {
		return err
	}
	return server.Serve(listener)
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driver, Endpoint: r.endpoint, SupportedVersions: []string{version},
	}, nil
}

func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, told *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !told.GetPluginRegistered() {
		log.Printf("the kubelet does not take the driver, and will try again: %s", told.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}
