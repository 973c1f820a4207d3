// The ClusterSet of embedded clusters: Multi-Cluster Services, as KEP-1645 has them, between clusters that were joined.
//
// Each member runs one of these beside its control plane. It sees the exports of all members, and makes of them what its
// own cluster imports (imports.go); where several export the same Service, it decides what that looks like (offers.go).
// What names then lead to is the business of CoreDNS, and of kube-proxy where packets go.
package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/source"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// How often it is looked whether clusters have joined or left.
const lookEvery = time.Second

const extension = ".kubeconfig"

func main() {
	own := flag.String("cluster", "", "Name of the member that imports what all of them export.")
	folder := flag.String("members", "", "Folder with a kubeconfig for each member: <name>"+extension+".")
	flag.Parse()
	ctrl.SetLogger(klog.Background())
	if err := run(ctrl.SetupSignalHandler(), *own, *folder); err != nil {
		klog.Fatal(err)
	}
}

func run(ctx context.Context, own, folder string) error {
	names, err := members(folder)
	if err != nil {
		return err
	}
	go beginAnew(folder, names)

	config, err := access(folder, own)
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{Scheme: kinds(), Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		return err
	}
	all := map[string]client.Reader{}
	watched := []source.Source{}
	for _, name := range names {
		member := cluster.Cluster(manager)
		if name != own {
			if member, err = other(folder, name); err != nil {
				return err
			}
			if err := manager.Add(member); err != nil {
				return err
			}
		}
		if err := served(ctx, member.GetRESTMapper()); err != nil {
			return err
		}
		all[name] = member.GetClient()
		for _, kind := range []client.Object{&v1.Service{}, &discovery.EndpointSlice{}, &mcs.ServiceExport{}} {
			watched = append(watched, source.Kind(member.GetCache(), kind, handler.EnqueueRequestsFromMapFunc(service)))
		}
	}
	imports := &imports{cluster: own, Client: manager.GetClient(), members: all}
	watched = append(watched,
		source.Kind(manager.GetCache(), client.Object(&mcs.ServiceImport{}), handler.EnqueueRequestsFromMapFunc(service)),
		source.Kind(manager.GetCache(), client.Object(&v1.Namespace{}), handler.EnqueueRequestsFromMapFunc(imports.into)))
	loop, err := controller.New("imports", manager, controller.Options{Reconciler: imports, MaxConcurrentReconciles: 4})
	if err != nil {
		return err
	}
	for _, each := range watched {
		if err := loop.Watch(each); err != nil {
			return err
		}
	}
	return manager.Start(ctx)
}

// served waits until a member's API has ServiceExports, whose definition was created just before this was started.
func served(ctx context.Context, mapper meta.RESTMapper) error {
	return wait.PollUntilContextCancel(ctx, lookEvery/10, true, func(context.Context) (bool, error) {
		_, err := mapper.RESTMapping(schema.GroupKind{Group: mcs.GroupName, Kind: mcs.ServiceExportKindName})
		return err == nil, nil
	})
}

// members has the names of all clusters that have joined, in order.
func members(folder string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*"+extension))
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), extension))
	}
	slices.Sort(names)
	return names, nil
}

// beginAnew starts the program again, in the same process, when a cluster joins or leaves.
func beginAnew(folder string, known []string) {
	for {
		time.Sleep(lookEvery)
		now, err := members(folder)
		if err != nil || slices.Equal(now, known) {
			continue
		}
		klog.Infof("members were %v, and are %v", known, now)
		if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
			klog.Fatal(err)
		}
	}
}

func access(folder, name string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(folder, name+extension))
	if err == nil {
		config.QPS, config.Burst = 200, 400
	}
	return config, err
}

func other(folder, name string) (cluster.Cluster, error) {
	config, err := access(folder, name)
	if err != nil {
		return nil, err
	}
	return cluster.New(config, func(options *cluster.Options) { options.Scheme = kinds() })
}

func kinds() *runtime.Scheme {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, mcs.AddToScheme} {
		if err := add(known); err != nil {
			klog.Fatal(err)
		}
	}
	return known
}
