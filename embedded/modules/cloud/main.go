// The cloud of an embedded cluster: the cloud controller manager that every cloud makes of k8s.io/cloud-provider, with
// a provider whose instances are the cluster's nodes (instances.go) and whose load balancers are addresses that the
// cluster's router leads to those (balancers.go).
package main

import (
	"net"
	"net/netip"
	"os"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
)

const provider = "embedded"

func main() {
	opts, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		klog.Fatal(err)
	}
	var pool net.IPNet
	flags := flag.NamedFlagSets{}
	flags.FlagSet(provider).IPNetVar(&pool, "load-balancer-network", pool, "Addresses that load balancers may have.")
	initialize := func(completed *config.CompletedConfig) cloudprovider.Interface {
		prefix, err := netip.ParsePrefix(pool.String())
		if err != nil {
			klog.Fatalf("--load-balancer-network: %v", err)
		}
		state := completed.ComponentConfig.KubeCloudShared.CloudProvider.CloudConfigFile
		return &cloud{state: state, balancers: newBalancers(prefix)}
	}
	command := app.NewCloudControllerManagerCommand(
		opts, initialize, app.DefaultInitFuncConstructors, names.CCMControllerAliases(), flags, wait.NeverStop)
	os.Exit(cli.Run(command))
}

// cloud has what the framework asks a provider for; it has neither routes nor clusters of its own.
type cloud struct {
	state     string // path of the file in which the launcher keeps the cluster's nodes
	balancers *balancers
}

func (c *cloud) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}

func (c *cloud) SetInformers(factory informers.SharedInformerFactory) { c.balancers.follow(factory) }

func (c *cloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return c.balancers, true }

func (c *cloud) InstancesV2() (cloudprovider.InstancesV2, bool) { return c, true }

func (c *cloud) Instances() (cloudprovider.Instances, bool) { return nil, false }

func (c *cloud) Zones() (cloudprovider.Zones, bool) { return nil, false }

func (c *cloud) Clusters() (cloudprovider.Clusters, bool) { return nil, false }

func (c *cloud) Routes() (cloudprovider.Routes, bool) { return nil, false }

func (c *cloud) ProviderName() string { return provider }

func (c *cloud) HasClusterID() bool { return true }
