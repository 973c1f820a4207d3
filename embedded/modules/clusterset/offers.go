package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// offer is a Service that a member exports.
type offer struct {
	cluster string
	export  *mcs.ServiceExport
	service *v1.Service
}

// inOrder has the oldest export first: where exports differ, it is the one that counts.
func inOrder(offers []offer) {
	slices.SortFunc(offers, func(a, b offer) int {
		return cmp.Or(
			a.export.CreationTimestamp.Compare(b.export.CreationTimestamp.Time), cmp.Compare(a.cluster, b.cluster))
	})
}

// valid says whether what an export names can be exported, and why not.
func (o offer) valid() (bool, mcs.ServiceExportConditionReason, string) {
	switch {
	case o.service == nil:
		return false, mcs.ServiceExportReasonNoService, "there is no Service of that name"
	case o.service.Spec.Type == v1.ServiceTypeExternalName:
		return false, mcs.ServiceExportReasonInvalidServiceType, "a Service of type ExternalName has no endpoints"
	}
	return true, mcs.ServiceExportReasonValid, "it can be exported"
}

// described is what others see of the Service, its addresses apart.
func (o offer) described() mcs.ServiceImportSpec {
	spec := o.service.Spec
	described := mcs.ServiceImportSpec{
		Type:                  mcs.ClusterSetIP,
		Ports:                 []mcs.ServicePort{},
		SessionAffinity:       spec.SessionAffinity,
		SessionAffinityConfig: spec.SessionAffinityConfig,
		InternalTrafficPolicy: spec.InternalTrafficPolicy,
		TrafficDistribution:   spec.TrafficDistribution,
	}
	if spec.ClusterIP == v1.ClusterIPNone {
		described.Type = mcs.Headless
	}
	for _, port := range spec.Ports {
		described.Ports = append(described.Ports, mcs.ServicePort{
			Name: port.Name, Protocol: port.Protocol, AppProtocol: port.AppProtocol, Port: port.Port,
		})
	}
	return described
}

// merged is one Service made of all offers, in their order: it has the ports of all, and all else of the first.
func merged(offers []offer) mcs.ServiceImportSpec {
	result := offers[0].described()
	for _, each := range offers[1:] {
		for _, port := range each.described().Ports {
			if !slices.ContainsFunc(result.Ports, func(known mcs.ServicePort) bool { return collide(known, port) }) {
				result.Ports = append(result.Ports, port)
			}
		}
	}
	return result
}

// collide says whether a Service can have only one of two ports.
func collide(a, b mcs.ServicePort) bool {
	return a.Name == b.Name || (a.Protocol == b.Protocol && a.Port == b.Port)
}

// conflicts says in what the offers differ: the reasons by which the API knows that, by comma, and a sentence.
func conflicts(offers []offer) (reason, message string) {
	reasons, differing := []string{}, []string{}
	first := offers[0].described()
	for _, each := range offers[1:] {
		other := each.described()
		for _, aspect := range []struct {
			reason mcs.ServiceExportConditionReason
			same   bool
		}{
			{mcs.ServiceExportReasonPortConflict, equality.Semantic.DeepEqual(first.Ports, other.Ports)},
			{mcs.ServiceExportReasonTypeConflict, first.Type == other.Type},
			{mcs.ServiceExportReasonSessionAffinityConflict, first.SessionAffinity == other.SessionAffinity},
			{mcs.ServiceExportReasonSessionAffinityConfigConflict,
				equality.Semantic.DeepEqual(first.SessionAffinityConfig, other.SessionAffinityConfig)},
			{mcs.ServiceExportReasonInternalTrafficPolicyConflict,
				equality.Semantic.DeepEqual(first.InternalTrafficPolicy, other.InternalTrafficPolicy)},
			{mcs.ServiceExportReasonTrafficDistributionConflict,
				equality.Semantic.DeepEqual(first.TrafficDistribution, other.TrafficDistribution)},
		} {
			if !aspect.same && !slices.Contains(reasons, string(aspect.reason)) {
				reasons = append(reasons, string(aspect.reason))
			}
			if !aspect.same && !slices.Contains(differing, each.cluster) {
				differing = append(differing, each.cluster)
			}
		}
	}
	if len(reasons) == 0 {
		return string(mcs.ServiceExportReasonNoConflicts), "all clusters export the same"
	}
	return strings.Join(reasons, ","), fmt.Sprintf(
		"%s exports something else than %s, whose export is the oldest and counts",
		strings.Join(differing, " and "), offers[0].cluster)
}
