// What enforces NetworkPolicies on a node of an embedded cluster.
//
// The verdicts are upstream's: the kernel hands its controller the first packet of each connection, and the controller
// says whether policies allow it. What hands it the packets is ours: upstream's nftables rules need the kernel's
// nft_queue, which small kernels lack, and iptables' NFQUEUE does the same (where there are both, a packet is judged
// twice, to the same end).
package main

import (
	"context"
	"flag"
	"fmt"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

const chain = "NETWORK-POLICIES"

// jump leads into the chain where a Service's address has been replaced by a pod's, and the sender's is still its own.
var jump = []string{"POSTROUTING", "-m", "comment", "--comment", "network policies", "-j", chain}

func main() {
	var node string
	var queue int
	flag.StringVar(&node, "hostname-override", "", "Name of the node whose pods are looked after.")
	flag.IntVar(&queue, "nfqueue-id", 98, "Number of the queue in which packets wait for their verdict.")
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, node, queue); err != nil {
		klog.Fatal(err)
	}
}

// run enforces policies until the context ends.
func run(ctx context.Context, node string, queue int) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	policies, pods := factory.Networking().V1().NetworkPolicies(), factory.Core().V1().Pods()
	// A node without its controller lets everything through instead of nothing.
	judge := networkpolicy.Config{NodeName: node, QueueID: queue, FailOpen: true}
	namespaces := factory.Core().V1().Namespaces()
	controller, err := networkpolicy.NewController(client, policies, namespaces, pods, nil, nil, nil, nil, judge)
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	for _, informer := range []cache.SharedIndexInformer{policies.Informer(), pods.Informer()} {
		if _, err := informer.AddEventHandler(announcing(changed)); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go func() {
		if err := controller.Run(ctx); err != nil && ctx.Err() == nil {
			klog.Fatal(err)
		}
	}()
	rules := &rules{node: node, queue: queue, pods: pods.Lister(), policies: policies.Lister()}
	return rules.follow(ctx, changed)
}

// announcing tells of every change, and of many at once only that there was one.
func announcing(changed chan<- struct{}) cache.ResourceEventHandler {
	announce := func() {
		select {
		case changed <- struct{}{}:
		default: // one is waiting to be seen, and this one with it
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { announce() },
		UpdateFunc: func(any, any) { announce() },
		DeleteFunc: func(any) { announce() },
	}
}

// rules queue the first packets of connections from and to those pods of the node that policies select. Packets of the
// node itself are not judged: its kubelet has to see whether pods are ready.
type rules struct {
	node     string
	queue    int
	pods     corelisters.PodLister
	policies networkinglisters.NetworkPolicyLister
}

// follow keeps the rules as the pods and policies are.
func (r *rules) follow(ctx context.Context, changed <-chan struct{}) error {
	if err := r.write(nil); err != nil {
		return err
	}
	if err := call("", "iptables", append([]string{"-w", "-t", "mangle", "-C"}, jump...)...); err != nil {
		if err := call("", "iptables", append([]string{"-w", "-t", "mangle", "-A"}, jump...)...); err != nil {
			return err
		}
	}
	var written []string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		selected, err := r.selected()
		if err != nil {
			return err
		}
		if slices.Equal(selected, written) {
			continue
		}
		if err := r.write(selected); err != nil {
			return err
		}
		written = selected
	}
}

// selected has the addresses of the node's pods that at least one policy selects, in order.
func (r *rules) selected() ([]string, error) {
	policies, err := r.policies.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, policy := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			return nil, err
		}
		pods, err := r.pods.Pods(policy.Namespace).List(selector)
		if err != nil {
			return nil, err
		}
		for _, pod := range pods {
			if pod.Spec.NodeName == r.node && has(pod) {
				addresses = append(addresses, pod.Status.PodIP)
			}
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), nil
}

// has says whether a pod has an address of its own; one that has ended may have left it to another.
func has(pod *corev1.Pod) bool {
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return pod.Status.PodIP != "" && !pod.Spec.HostNetwork && !ended
}

// write replaces the chain's rules, all at once.
func (r *rules) write(addresses []string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "*mangle\n:%s - [0:0]\n", chain)
	fmt.Fprintf(&text, "-A %s -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN\n", chain)
	fmt.Fprintf(&text, "-A %s -m addrtype --src-type LOCAL -j RETURN\n", chain)
	for _, address := range addresses {
		for _, side := range []string{"-s", "-d"} {
			fmt.Fprintf(&text, "-A %s %s %s -j NFQUEUE --queue-num %d --queue-bypass\n", chain, side, address, r.queue)
		}
	}
	text.WriteString("COMMIT\n")
	return call(text.String(), "iptables-restore", "-w", "--noflush")
}

// call runs a program; what it says is in the error.
func call(input, program string, args ...string) error {
	command := exec.Command(program, args...)
	command.Stdin = strings.NewReader(input)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, output)
	}
	return nil
}
