package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"
	"sigs.k8s.io/karpenter/pkg/utils/resources"
)

const (
	instanceType = "embedded"
	zone         = "embedded"
)

// Provider adds nodes to the embedded cluster and takes them away. The cluster's state file says which there are.
type Provider struct {
	settings *Settings
	client   client.Client

	changing sync.Mutex // one command at a time: they would wait for each other anyway
	sizing   sync.Mutex
	types    []*cloudprovider.InstanceType
}

type node struct {
	Name  string
	Claim string
}

// Create adds a node for a claim, or finds the one that an earlier try has added.
func (p *Provider) Create(ctx context.Context, claim *v1.NodeClaim) (*v1.NodeClaim, error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	taint := fmt.Sprintf("%s:%s", v1.UnregisteredNoExecuteTaint.Key, v1.UnregisteredNoExecuteTaint.Effect)
	if err := p.run(ctx, "add", "--claim", claim.Name, "--taint", taint); err != nil {
		return nil, err
	}
	return p.find(ctx, func(each node, _ string) bool { return each.Claim == claim.Name })
}

// Delete takes a claim's node away; that it is gone is told by an error.
func (p *Provider) Delete(ctx context.Context, claim *v1.NodeClaim) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	found, err := p.find(ctx, func(each node, _ string) bool { return each.Claim == claim.Name })
	if err != nil {
		return err
	}
	if err := p.run(ctx, "remove", found.Status.NodeName); err != nil {
		return err
	}
	return cloudprovider.NewNodeClaimNotFoundError(errors.New("its node was removed"))
}

// Get finds the claim that a node was added for.
func (p *Provider) Get(ctx context.Context, id string) (*v1.NodeClaim, error) {
	return p.find(ctx, func(_ node, its string) bool { return its == id })
}

// List tells of all nodes that were added for a claim.
func (p *Provider) List(ctx context.Context) ([]*v1.NodeClaim, error) {
	return p.all(ctx, func(node, string) bool { return true })
}

// GetInstanceTypes has one type: a node like those that the cluster has.
func (p *Provider) GetInstanceTypes(ctx context.Context, _ *v1.NodePool) ([]*cloudprovider.InstanceType, error) {
	p.sizing.Lock()
	defer p.sizing.Unlock()
	if p.types != nil {
		return p.types, nil
	}
	var there corev1.NodeList
	if err := p.client.List(ctx, &there); err != nil {
		return nil, fmt.Errorf("listing nodes, %w", err)
	}
	for _, each := range there.Items {
		if len(each.Status.Allocatable) > 0 {
			p.types = []*cloudprovider.InstanceType{typeLike(&each)}
			return p.types, nil
		}
	}
	return nil, errors.New("no node tells yet what it has")
}

func typeLike(model *corev1.Node) *cloudprovider.InstanceType {
	where := scheduling.NewRequirements(
		scheduling.NewRequirement(corev1.LabelTopologyZone, corev1.NodeSelectorOpIn, zone),
		scheduling.NewRequirement(v1.CapacityTypeLabelKey, corev1.NodeSelectorOpIn, v1.CapacityTypeOnDemand),
	)
	what := scheduling.NewRequirements(
		scheduling.NewRequirement(corev1.LabelInstanceTypeStable, corev1.NodeSelectorOpIn, instanceType),
		scheduling.NewRequirement(corev1.LabelArchStable, corev1.NodeSelectorOpIn, model.Status.NodeInfo.Architecture),
		scheduling.NewRequirement(corev1.LabelOSStable, corev1.NodeSelectorOpIn, model.Status.NodeInfo.OperatingSystem),
	)
	what.Add(where.Values()...)
	return &cloudprovider.InstanceType{
		Name:         instanceType,
		Requirements: what,
		Offerings:    cloudprovider.Offerings{{Requirements: where, Price: 1, Available: true}},
		Capacity:     model.Status.Capacity,
		Overhead: &cloudprovider.InstanceTypeOverhead{
			KubeReserved: resources.Subtract(model.Status.Capacity, model.Status.Allocatable),
		},
	}
}

func labelsOf(described *cloudprovider.InstanceType) map[string]string {
	labels := map[string]string{}
	for _, each := range described.Requirements {
		labels[each.Key] = each.Any()
	}
	return labels
}

// IsDrifted tells of nodes that are not as they should be any more; none ever is.
func (p *Provider) IsDrifted(context.Context, *v1.NodeClaim) (cloudprovider.DriftReason, error) {
	return "", nil
}

// RepairPolicies says when nodes are given up; they are not.
func (p *Provider) RepairPolicies() []cloudprovider.RepairPolicy {
	return nil
}

// Name of the provider.
func (p *Provider) Name() string {
	return "embedded"
}

// GetSupportedNodeClasses names the kind that NodePools refer to.
func (p *Provider) GetSupportedNodeClasses() []status.Object {
	return []status.Object{&NodeClass{}}
}

func (p *Provider) find(ctx context.Context, wanted func(node, string) bool) (*v1.NodeClaim, error) {
	found, err := p.all(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, cloudprovider.NewNodeClaimNotFoundError(errors.New("the cluster has no such node"))
	}
	return found[0], nil
}

// all reads the nodes that were added for a claim, each with its provider's id, and tells of those that are wanted.
func (p *Provider) all(ctx context.Context, wanted func(node, string) bool) ([]*v1.NodeClaim, error) {
	raw, err := os.ReadFile(p.settings.State)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's state, %w", err)
	}
	var cluster struct{ Nodes []node }
	if err := json.Unmarshal(raw, &cluster); err != nil {
		return nil, fmt.Errorf("reading the cluster's state, %w", err)
	}
	var claims []*v1.NodeClaim
	for _, each := range cluster.Nodes {
		id := fmt.Sprintf("embedded://%s/%s", p.settings.Cluster, each.Name)
		if each.Claim == "" || !wanted(each, id) {
			continue
		}
		types, err := p.GetInstanceTypes(ctx, nil)
		if err != nil {
			return nil, err
		}
		claims = append(claims, &v1.NodeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: each.Claim, Labels: labelsOf(types[0])},
			Status: v1.NodeClaimStatus{
				NodeName:    each.Name,
				ProviderID:  id,
				Capacity:    types[0].Capacity,
				Allocatable: types[0].Allocatable(),
			},
		})
	}
	return claims, nil
}

func (p *Provider) run(ctx context.Context, verb string, arguments ...string) error {
	arguments = append([]string{"node", verb, "--name", p.settings.Cluster}, arguments...)
	command := exec.CommandContext(ctx, p.settings.Command, arguments...)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(string(said)))
	}
	return nil
}
