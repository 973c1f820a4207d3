package main

import (
	"context"
	"crypto/sha256"
	"fmt"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

const manager = "clusterset.clusterproof.dev"

// imports makes of the exports of all members what one of them imports.
//
// Of each exported Service there are a ServiceImport, which the name server reads; an EndpointSlice for each one that
// the exporting members have; and, unless it is headless, a Service of another name, whose cluster IP the ServiceImport
// has. Kubernetes itself then does with that Service and those slices what it does with all others.
type imports struct {
	cluster       string // whose they are
	client.Client        // to that cluster
	members       map[string]client.Reader
}

// service is the Service that an object has to do with.
func service(_ context.Context, object client.Object) []reconcile.Request {
	name := object.GetName()
	for _, label := range []string{discovery.LabelServiceName, mcs.LabelServiceName} { // the last one counts
		if given := object.GetLabels()[label]; given != "" {
			name = given
		}
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: name}}}
}

// into has the Services that are exported in a namespace of that name: only where there is one can they be imported.
func (i *imports) into(ctx context.Context, namespace client.Object) []reconcile.Request {
	requests := []reconcile.Request{}
	for _, member := range i.members {
		exports := mcs.ServiceExportList{}
		if err := member.List(ctx, &exports, client.InNamespace(namespace.GetName())); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "exports of a new namespace are not seen", "namespace", namespace.GetName())
		}
		for _, export := range exports.Items {
			requests = append(requests, service(ctx, &export)...)
		}
	}
	return requests
}

func (i *imports) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	offers, err := i.offers(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	namespace := v1.Namespace{}
	if err := i.Get(ctx, types.NamespacedName{Name: request.Namespace}, &namespace); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if namespace.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if len(offers) == 0 {
		return reconcile.Result{}, i.remove(ctx, request.NamespacedName)
	}
	return reconcile.Result{}, i.offer(ctx, request.NamespacedName, offers)
}

// offers has what the members export under a name; the own export gets to know what became of it.
func (i *imports) offers(ctx context.Context, name types.NamespacedName) ([]offer, error) {
	offers, own := []offer{}, offer{}
	for cluster, member := range i.members {
		one := offer{cluster, &mcs.ServiceExport{}, &v1.Service{}}
		if err := member.Get(ctx, name, one.export); errors.IsNotFound(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := member.Get(ctx, name, one.service); errors.IsNotFound(err) {
			one.service = nil
		} else if err != nil {
			return nil, err
		}
		if cluster == i.cluster {
			own = one
		}
		if valid, _, _ := one.valid(); valid && one.export.DeletionTimestamp == nil {
			offers = append(offers, one)
		}
	}
	inOrder(offers)
	if own.export == nil {
		return offers, nil
	}
	return offers, i.tell(ctx, own, offers)
}

// tell writes into an export whether it can be exported, whether it is, and whether others export something else.
func (i *imports) tell(ctx context.Context, own offer, offers []offer) error {
	export := own.export.DeepCopy()
	state := func(kind mcs.ServiceExportConditionType, holds bool, reason, message string) {
		status := metav1.ConditionFalse
		if holds {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&export.Status.Conditions, metav1.Condition{
			Type: string(kind), Status: status, Reason: reason, Message: message, ObservedGeneration: export.Generation,
		})
	}
	valid, reason, message := own.valid()
	state(mcs.ServiceExportConditionValid, valid, string(reason), message)
	if valid {
		reason, message := conflicts(offers)
		state(mcs.ServiceExportConditionConflict, reason != string(mcs.ServiceExportReasonNoConflicts), reason, message)
		state(mcs.ServiceExportConditionReady, true, string(mcs.ServiceExportReasonExported), "the others see it")
	} else {
		meta.RemoveStatusCondition(&export.Status.Conditions, string(mcs.ServiceExportConditionConflict))
		state(mcs.ServiceExportConditionReady, false, string(mcs.ServiceExportReasonFailed), message)
	}
	if equality.Semantic.DeepEqual(export.Status, own.export.Status) {
		return nil
	}
	return client.IgnoreNotFound(i.Status().Update(ctx, export))
}

// remove takes away what was imported under a name.
func (i *imports) remove(ctx context.Context, name types.NamespacedName) error {
	imported := &mcs.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	for _, each := range []client.Object{imported, derived(name)} {
		if err := i.discard(ctx, each); err != nil {
			return err
		}
	}
	return i.keepSlices(ctx, name, nil)
}

// discard deletes what may not be there.
func (i *imports) discard(ctx context.Context, object client.Object) error {
	err := i.Get(ctx, client.ObjectKeyFromObject(object), object)
	if err == nil {
		err = i.Delete(ctx, object)
	}
	return client.IgnoreNotFound(err)
}

// offer imports what the members export under a name.
func (i *imports) offer(ctx context.Context, name types.NamespacedName, offers []offer) error {
	imported := &mcs.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	spec := merged(offers)
	if _, err := controllerutil.CreateOrUpdate(ctx, i, imported, func() error {
		spec.IPs, spec.IPFamilies = imported.Spec.IPs, imported.Spec.IPFamilies
		imported.Spec = spec
		return nil
	}); err != nil {
		return err
	}
	behind := derived(name)
	if spec.Type == mcs.Headless {
		if err := i.discard(ctx, derived(name)); err != nil {
			return err
		}
	} else if _, err := controllerutil.CreateOrUpdate(ctx, i, behind, func() error {
		return i.derive(imported, behind)
	}); err != nil {
		return err
	}
	if err := i.slice(ctx, imported, behind.Name, offers); err != nil {
		return err
	}
	// Only now is there something behind the address.
	if !equality.Semantic.DeepEqual(imported.Spec.IPs, behind.Spec.ClusterIPs) {
		imported.Spec.IPs, imported.Spec.IPFamilies = behind.Spec.ClusterIPs, behind.Spec.IPFamilies
		if err := i.Update(ctx, imported); err != nil {
			return err
		}
	}
	return i.describe(ctx, imported, offers)
}

// derived is the Service that has the cluster IP of an imported one.
func derived(name types.NamespacedName) *v1.Service {
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(name.String())))
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: "derived-" + digest[:10]}}
}

func (i *imports) derive(imported *mcs.ServiceImport, behind *v1.Service) error {
	behind.Labels = map[string]string{mcs.LabelServiceName: imported.Name}
	behind.Spec.SessionAffinity = imported.Spec.SessionAffinity
	behind.Spec.SessionAffinityConfig = imported.Spec.SessionAffinityConfig
	behind.Spec.InternalTrafficPolicy = imported.Spec.InternalTrafficPolicy
	behind.Spec.TrafficDistribution = imported.Spec.TrafficDistribution
	ports := []v1.ServicePort{}
	for _, port := range imported.Spec.Ports {
		known := v1.ServicePort{Name: port.Name, Protocol: port.Protocol, AppProtocol: port.AppProtocol, Port: port.Port}
		for _, before := range behind.Spec.Ports {
			if before.Name == port.Name {
				known.TargetPort = before.TargetPort // which the API server fills in
			}
		}
		ports = append(ports, known)
	}
	behind.Spec.Ports = ports
	return controllerutil.SetOwnerReference(imported, behind, i.Scheme())
}

// slice copies the EndpointSlices of all exported Services, and takes away copies of those that are no more.
func (i *imports) slice(ctx context.Context, imported *mcs.ServiceImport, behind string, offers []offer) error {
	name := client.ObjectKeyFromObject(imported)
	wanted := map[string]bool{}
	for _, offer := range offers {
		found := discovery.EndpointSliceList{}
		label := client.MatchingLabels{discovery.LabelServiceName: name.Name}
		if err := i.members[offer.cluster].List(ctx, &found, client.InNamespace(name.Namespace), label); err != nil {
			return err
		}
		for _, original := range found.Items {
			copied := &discovery.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
				Namespace: name.Namespace, Name: fmt.Sprintf("%s-%s", offer.cluster, original.Name),
			}}
			wanted[copied.Name] = true
			if _, err := controllerutil.CreateOrUpdate(ctx, i, copied, func() error {
				copied.Labels = map[string]string{
					mcs.LabelServiceName:     name.Name,
					mcs.LabelSourceCluster:   offer.cluster,
					discovery.LabelManagedBy: manager,
				}
				if imported.Spec.Type != mcs.Headless {
					copied.Labels[discovery.LabelServiceName] = behind
				}
				copied.AddressType, copied.Ports = original.AddressType, original.Ports
				copied.Endpoints = i.seen(original.Endpoints, offer.cluster)
				return controllerutil.SetOwnerReference(imported, copied, i.Scheme())
			}); err != nil {
				return err
			}
		}
	}
	return i.keepSlices(ctx, name, wanted)
}

// keepSlices takes away the copied EndpointSlices of a Service, but for the wanted ones.
func (i *imports) keepSlices(ctx context.Context, name types.NamespacedName, wanted map[string]bool) error {
	there := discovery.EndpointSliceList{}
	label := client.MatchingLabels{mcs.LabelServiceName: name.Name, discovery.LabelManagedBy: manager}
	if err := i.List(ctx, &there, client.InNamespace(name.Namespace), label); err != nil {
		return err
	}
	for _, each := range there.Items {
		if !wanted[each.Name] {
			if err := i.Delete(ctx, &each); client.IgnoreNotFound(err) != nil {
				return err
			}
		}
	}
	return nil
}

// seen has endpoints of a member as the own cluster sees them: nodes and pods of others mean nothing here.
func (i *imports) seen(endpoints []discovery.Endpoint, cluster string) []discovery.Endpoint {
	copies := []discovery.Endpoint{}
	for _, each := range endpoints {
		copied := *each.DeepCopy()
		copied.Hints = nil
		if cluster != i.cluster {
			copied.NodeName, copied.TargetRef = nil, nil
		}
		copies = append(copies, copied)
	}
	return copies
}

// describe writes into what was imported whose it is.
func (i *imports) describe(ctx context.Context, imported *mcs.ServiceImport, offers []offer) error {
	before := imported.Status.DeepCopy()
	imported.Status.EndpointSliceObjects = mcs.EndpointSliceObjectsPresent
	imported.Status.Clusters = []mcs.ClusterStatus{}
	for _, each := range offers {
		imported.Status.Clusters = append(imported.Status.Clusters, mcs.ClusterStatus{Cluster: each.cluster})
	}
	meta.SetStatusCondition(&imported.Status.Conditions, metav1.Condition{
		Type: string(mcs.ServiceImportConditionReady), Status: metav1.ConditionTrue,
		Reason: string(mcs.ServiceImportReasonReady), Message: "it can be used", ObservedGeneration: imported.Generation,
	})
	if equality.Semantic.DeepEqual(*before, imported.Status) {
		return nil
	}
	return i.Status().Update(ctx, imported)
}
