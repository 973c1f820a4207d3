package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"
)

// balancers gives addresses to Services and routes them to the nodes, where kube-proxy knows what to do with them. It
// runs where the cluster's router is; what has no route there is unreachable.
type balancers struct {
	pool     netip.Prefix
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister

	lock sync.Mutex
	all  map[types.NamespacedName]*balancer
}

type balancer struct {
	address netip.Addr
	service *v1.Service
	nodes   []*v1.Node
}

func newBalancers(pool netip.Prefix) *balancers {
	return &balancers{pool: pool, all: map[types.NamespacedName]*balancer{}}
}

// follow keeps an eye on where the pods of Services are: the service controller does not.
func (b *balancers) follow(factory informers.SharedInformerFactory) {
	b.services = factory.Core().V1().Services().Lister()
	informer := factory.Discovery().V1().EndpointSlices()
	b.slices = informer.Lister()
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    b.podsMoved,
		UpdateFunc: func(_, now any) { b.podsMoved(now) },
		DeleteFunc: b.podsMoved,
	}
	if _, err := informer.Informer().AddEventHandler(handler); err != nil {
		klog.Fatal(err)
	}
}

func (b *balancers) podsMoved(seen any) {
	if last, ok := seen.(cache.DeletedFinalStateUnknown); ok {
		seen = last.Obj
	}
	slice, ok := seen.(*discovery.EndpointSlice)
	if !ok {
		return
	}
	b.lock.Lock()
	defer b.lock.Unlock()
	name := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discovery.LabelServiceName]}
	if one, found := b.all[name]; found && local(one.service) {
		if err := b.route(one); err != nil {
			klog.ErrorS(err, "load balancer keeps its old route", "service", name)
		}
	}
}

func (b *balancers) GetLoadBalancerName(_ context.Context, _ string, service *v1.Service) string {
	return cloudprovider.DefaultLoadBalancerName(service)
}

func (b *balancers) GetLoadBalancer(
	_ context.Context, _ string, service *v1.Service,
) (*v1.LoadBalancerStatus, bool, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	address, found := b.addressOf(service)
	return status(address), found, nil
}

func (b *balancers) EnsureLoadBalancer(
	_ context.Context, _ string, service *v1.Service, nodes []*v1.Node,
) (*v1.LoadBalancerStatus, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	address, found := b.addressOf(service)
	if !found {
		var err error
		if address, err = b.free(); err != nil {
			return nil, err
		}
	}
	one := &balancer{address, service, nodes}
	b.all[nameOf(service)] = one
	return status(address), b.route(one)
}

func (b *balancers) UpdateLoadBalancer(
	ctx context.Context, cluster string, service *v1.Service, nodes []*v1.Node,
) error {
	_, err := b.EnsureLoadBalancer(ctx, cluster, service, nodes)
	return err
}

func (b *balancers) EnsureLoadBalancerDeleted(_ context.Context, _ string, service *v1.Service) error {
	b.lock.Lock()
	defer b.lock.Unlock()
	address, found := b.addressOf(service)
	if !found {
		return nil
	}
	if err := unroute(address); err != nil {
		return err
	}
	delete(b.all, nameOf(service))
	return nil
}

// addressOf a Service is what it has here, or before this program was started had: that is in its status.
func (b *balancers) addressOf(service *v1.Service) (netip.Addr, bool) {
	if one, found := b.all[nameOf(service)]; found {
		return one.address, true
	}
	for _, each := range service.Status.LoadBalancer.Ingress {
		if address, err := netip.ParseAddr(each.IP); err == nil && b.pool.Contains(address) {
			return address, true
		}
	}
	return netip.Addr{}, false
}

func (b *balancers) free() (netip.Addr, error) {
	taken := map[netip.Addr]bool{}
	for _, one := range b.all {
		taken[one.address] = true
	}
	// Those that this program has not been asked about since its start have theirs, too.
	services, err := b.services.List(labels.Everything())
	if err != nil {
		return netip.Addr{}, err
	}
	for _, service := range services {
		if address, found := b.addressOf(service); found {
			taken[address] = true
		}
	}
	for address := b.pool.Addr().Next(); b.pool.Contains(address); address = address.Next() {
		if !taken[address] {
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are taken", b.pool)
}

// route leads an address to the nodes; of those, if traffic is to stay local, to those that have a pod.
func (b *balancers) route(one *balancer) error {
	var having map[string]bool
	if local(one.service) {
		var err error
		if having, err = b.nodesWithPods(one.service); err != nil {
			return err
		}
	}
	var hops []string
	for _, node := range one.nodes {
		if having != nil && !having[node.Name] {
			continue
		}
		for _, each := range node.Status.Addresses {
			if each.Type == v1.NodeInternalIP && !slices.Contains(hops, each.Address) {
				hops = append(hops, each.Address)
			}
		}
	}
	if len(hops) == 0 {
		return unroute(one.address)
	}
	slices.Sort(hops)
	arguments := []string{"route", "replace", one.address.String()}
	for _, hop := range hops {
		arguments = append(arguments, "nexthop", "via", hop)
	}
	return ip(arguments...)
}

func (b *balancers) nodesWithPods(service *v1.Service) (map[string]bool, error) {
	ours := labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service.Name})
	found, err := b.slices.EndpointSlices(service.Namespace).List(ours)
	having := map[string]bool{}
	for _, slice := range found {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			if ready && endpoint.NodeName != nil {
				having[*endpoint.NodeName] = true
			}
		}
	}
	return having, err
}

func nameOf(service *v1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
}

func local(service *v1.Service) bool {
	return service.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
}

func status(address netip.Addr) *v1.LoadBalancerStatus {
	if !address.IsValid() {
		return &v1.LoadBalancerStatus{}
	}
	return &v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{{IP: address.String()}}}
}

func unroute(address netip.Addr) error {
	return ip("route", "flush", "exact", address.String()) // which may have none
}

func ip(arguments ...string) error {
	said, err := exec.Command("ip", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(string(said)))
	}
	klog.InfoS("Routed", "ip", strings.Join(arguments, " "))
	return nil
}
