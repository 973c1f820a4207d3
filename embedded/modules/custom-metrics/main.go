// An adapter that serves gauges of pods in the APIs custom.metrics.k8s.io and external.metrics.k8s.io.
//
// Pods say by annotations that they have metrics, as many configurations of Prometheus expect it: prometheus.io/scrape,
// prometheus.io/port and prometheus.io/path. They are asked when somebody asks for a metric, and never before: what is
// served is never older than the request, there is nothing of pods that are gone, and nobody pays for metrics that
// nobody uses.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"

	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

const (
	patience = 2 * time.Second // for one pod's answer
	largest  = 16 << 20        // bytes of an answer that are read
	atOnce   = 16              // pods that are asked at the same time for one request
)

var (
	podResource     = schema.GroupResource{Resource: "pods"}
	serviceResource = schema.GroupResource{Resource: "services"}
)

func main() {
	if err := run(); err != nil {
		klog.ErrorS(err, "the custom metrics adapter ends")
		os.Exit(1)
	}
}

func run() error {
	base := &cmd.AdapterBase{Name: "custom-metrics"}
	if err := base.Flags().Parse(os.Args[1:]); err != nil {
		return err
	}
	informers, err := base.Informers()
	if err != nil {
		return err
	}
	core := informers.Core().V1()
	if err := core.Pods().Informer().SetTransform(slim); err != nil {
		return err
	}
	gauges := &gauges{pods: core.Pods().Lister(), services: core.Services().Lister(), client: client()}
	base.WithCustomMetrics(gauges)
	base.WithExternalMetrics(gauges)
	return base.Run(genericapiserver.SetupSignalContext())
}

// client connects anew for each request, so that no connection of its own is among those that a pod counts, and keeps
// to the pod that it asks.
func client() *http.Client {
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: stay}
}

// slim takes from a pod what is not needed here and takes up memory for each of the cluster's pods.
func slim(object any) (any, error) {
	if pod, ok := object.(*corev1.Pod); ok {
		pod.ManagedFields, pod.Spec, pod.Status.ContainerStatuses = nil, corev1.PodSpec{}, nil
	}
	return object, nil
}

type gauges struct {
	pods     corelisters.PodLister
	services corelisters.ServiceLister
	client   *http.Client
}

// reading is what one pod said of one metric: all its series, or why there are none.
type reading struct {
	pod    *corev1.Pod
	series []*dto.Metric
	err    error
}

// GetMetricByName gives a metric of a pod, or of a Service: the sum over its ready pods.
func (g *gauges) GetMetricByName(ctx context.Context, name types.NamespacedName, info provider.CustomMetricInfo, of labels.Selector) (*custom_metrics.MetricValue, error) {
	pods, kind, err := g.behind(name, info.GroupResource)
	if err != nil {
		return nil, err
	}
	readings := g.read(ctx, pods, info.Metric)
	total, found := 0.0, false
	for _, each := range readings {
		// A sum that lacks a pod's part would be a lie.
		if each.err != nil {
			return nil, apierrors.NewServiceUnavailable(each.err.Error())
		}
		value, ok := sum(each.series, of)
		total, found = total+value, found || ok
	}
	if !found {
		return nil, provider.NewMetricNotFoundForError(info.GroupResource, info.Metric, name.Name)
	}
	value := metric(kind, name, info.Metric, of, total)
	return &value, nil
}

// GetMetricBySelector gives a metric of those of the selected pods that have it.
func (g *gauges) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info provider.CustomMetricInfo, of labels.Selector) (*custom_metrics.MetricValueList, error) {
	if info.GroupResource != podResource {
		return nil, provider.NewMetricNotFoundError(info.GroupResource, info.Metric)
	}
	pods, err := g.pods.Pods(namespace).List(selector)
	if err != nil {
		return nil, err
	}
	list := &custom_metrics.MetricValueList{}
	for _, each := range g.read(ctx, pods, info.Metric) {
		if each.err != nil {
			klog.InfoS("A pod does not tell its metrics", "pod", klog.KObj(each.pod), "err", each.err)
		} else if value, ok := sum(each.series, of); ok {
			name := types.NamespacedName{Namespace: each.pod.Namespace, Name: each.pod.Name}
			list.Items = append(list.Items, metric("Pod", name, info.Metric, of, value))
		}
	}
	return list, nil
}

// GetExternalMetric gives all series of a metric of a namespace's ready pods, each with its labels and the name of its pod.
func (g *gauges) GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	pods, err := g.pods.Pods(namespace).List(labels.Everything())
	if err != nil {
		return nil, err
	}
	list := &external_metrics.ExternalMetricValueList{}
	for _, each := range g.read(ctx, only(pods, ready), info.Metric) {
		// As for a Service: HPAs add these values.
		if each.err != nil {
			return nil, apierrors.NewServiceUnavailable(each.err.Error())
		}
		for _, series := range each.series {
			all := labelled(series)
			all["pod"] = each.pod.Name
			if selector.Matches(all) {
				list.Items = append(list.Items, external_metrics.ExternalMetricValue{
					MetricName:   info.Metric,
					MetricLabels: all,
					Timestamp:    metav1.Now(),
					Value:        quantity(number(series)),
				})
			}
		}
	}
	return list, nil
}

// ListAllMetrics says that any gauge may be there: which there are is known only when somebody asks for one.
func (g *gauges) ListAllMetrics() []provider.CustomMetricInfo {
	return []provider.CustomMetricInfo{
		{GroupResource: podResource, Namespaced: true, Metric: "*"},
		{GroupResource: serviceResource, Namespaced: true, Metric: "*"},
	}
}

// ListAllExternalMetrics says the same of external metrics.
func (g *gauges) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	return []provider.ExternalMetricInfo{{Metric: "*"}}
}

// behind gives the pods that make up an object, and the object's kind.
func (g *gauges) behind(name types.NamespacedName, of schema.GroupResource) ([]*corev1.Pod, string, error) {
	switch of {
	case podResource:
		pod, err := g.pods.Pods(name.Namespace).Get(name.Name)
		return []*corev1.Pod{pod}, "Pod", err
	case serviceResource:
		service, err := g.services.Services(name.Namespace).Get(name.Name)
		if err != nil {
			return nil, "", err
		}
		selector := labels.Nothing()
		if len(service.Spec.Selector) > 0 {
			selector = labels.SelectorFromSet(service.Spec.Selector)
		}
		pods, err := g.pods.Pods(name.Namespace).List(selector)
		return only(pods, ready), "Service", err
	}
	return nil, "", apierrors.NewNotFound(of, name.Name)
}

// read asks those of some pods that have metrics at all, and gives what each said, in their order.
func (g *gauges) read(ctx context.Context, pods []*corev1.Pod, name string) []reading {
	asked := only(pods, annotated)
	readings := make([]reading, len(asked))
	turns := make(chan struct{}, atOnce)
	var everyone sync.WaitGroup
	for place, pod := range asked {
		turns <- struct{}{}
		everyone.Go(func() {
			defer func() { <-turns }()
			series, err := g.ask(ctx, pod, name)
			readings[place] = reading{pod, series, err}
		})
	}
	everyone.Wait()
	return readings
}

func (g *gauges) ask(ctx context.Context, pod *corev1.Pod, name string) ([]*dto.Metric, error) {
	path := pod.Annotations["prometheus.io/path"]
	if path == "" {
		path = "/metrics"
	}
	host := net.JoinHostPort(pod.Status.PodIP, pod.Annotations["prometheus.io/port"])
	url := fmt.Sprintf("http://%s/%s", host, strings.TrimPrefix(path, "/"))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	answer, err := g.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("pod %s/%s: %s answered %s", pod.Namespace, pod.Name, url, answer.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(http.MaxBytesReader(nil, answer.Body, largest))
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s: %s: %w", pod.Namespace, pod.Name, url, err)
	}
	family := families[name]
	if kind := family.GetType(); kind != dto.MetricType_GAUGE && kind != dto.MetricType_UNTYPED {
		return nil, nil
	}
	return family.GetMetric(), nil
}

func only(pods []*corev1.Pod, wanted func(*corev1.Pod) bool) []*corev1.Pod {
	var found []*corev1.Pod
	for _, pod := range pods {
		if wanted(pod) {
			found = append(found, pod)
		}
	}
	return found
}

// annotated tells whether a pod says that it has metrics, and runs, so that it can be asked.
func annotated(pod *corev1.Pod) bool {
	runs := pod.Status.Phase == corev1.PodRunning && pod.Status.PodIP != "" && pod.DeletionTimestamp == nil
	return runs && pod.Annotations["prometheus.io/scrape"] == "true" && pod.Annotations["prometheus.io/port"] != ""
}

func ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// sum adds the selected series of a metric, and tells whether there are any.
func sum(series []*dto.Metric, of labels.Selector) (total float64, found bool) {
	for _, each := range series {
		if of.Matches(labelled(each)) {
			total, found = total+number(each), true
		}
	}
	return total, found
}

func labelled(series *dto.Metric) labels.Set {
	all := labels.Set{}
	for _, pair := range series.GetLabel() {
		all[pair.GetName()] = pair.GetValue()
	}
	return all
}

// number is the value of a gauge, or of a metric without a type: one of the two is zero.
func number(series *dto.Metric) float64 {
	return series.GetGauge().GetValue() + series.GetUntyped().GetValue()
}

func quantity(value float64) resource.Quantity {
	return *resource.NewMilliQuantity(int64(value*1000), resource.DecimalSI)
}

func metric(kind string, name types.NamespacedName, called string, of labels.Selector, value float64) custom_metrics.MetricValue {
	identifier := custom_metrics.MetricIdentifier{Name: called}
	if !of.Empty() {
		identifier.Selector, _ = metav1.ParseToLabelSelector(of.String())
	}
	return custom_metrics.MetricValue{
		DescribedObject: custom_metrics.ObjectReference{APIVersion: "v1", Kind: kind, Namespace: name.Namespace, Name: name.Name},
		Metric:          identifier,
		Timestamp:       metav1.Now(),
		Value:           quantity(value),
	}
}
