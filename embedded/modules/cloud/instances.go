package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
)

// cluster is what this program needs of the launcher's state file.
type cluster struct {
	Name  string     `json:"name"`
	Nodes []instance `json:"nodes"`
}

type instance struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

func (c *cluster) providerID(of instance) string {
	return fmt.Sprintf("%s://%s/%s", provider, c.Name, of.Name)
}

// find returns the instance of a node: the one that its providerID names, or before it has one, that of its name.
func (c *cluster) find(node *v1.Node) (instance, bool) {
	for _, each := range c.Nodes {
		if node.Spec.ProviderID == c.providerID(each) || node.Spec.ProviderID == "" && node.Name == each.Name {
			return each, true
		}
	}
	return instance{}, false
}

// read is called anew for each question: nodes come and go.
func (c *cloud) read() (*cluster, error) {
	text, err := os.ReadFile(c.state)
	if err != nil {
		return nil, err
	}
	var found cluster
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("%s: %w", c.state, err)
	}
	return &found, nil
}

// InstanceExists says no of a node that was an instance once and has gone. A Node object that never had a providerID
// is no instance of this cloud, and whoever made it takes it away.
func (c *cloud) InstanceExists(_ context.Context, node *v1.Node) (bool, error) {
	all, err := c.read()
	if err != nil {
		return false, err
	}
	_, found := all.find(node)
	return found || node.Spec.ProviderID == "", nil
}

// InstanceShutdown is never so: what is shut down here is gone.
func (c *cloud) InstanceShutdown(context.Context, *v1.Node) (bool, error) { return false, nil }

// InstanceMetadata has what the node controller writes on a node. The cluster is a region, and each node a zone.
func (c *cloud) InstanceMetadata(_ context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	all, err := c.read()
	if err != nil {
		return nil, err
	}
	found, ok := all.find(node)
	if !ok {
		return nil, fmt.Errorf("node %s: %w", node.Name, cloudprovider.InstanceNotFound)
	}
	return &cloudprovider.InstanceMetadata{
		ProviderID: all.providerID(found),
		// As the autoscaler calls it (modules/karpenter), which leaves nodes of a type that it does not know alone.
		InstanceType: "embedded",
		Region:       all.Name,
		Zone:         found.Name,
		NodeAddresses: []v1.NodeAddress{
			{Type: v1.NodeInternalIP, Address: found.Address},
			{Type: v1.NodeHostName, Address: found.Name},
		},
	}, nil
}
