// An accelerator of memory alone, for torch's PrivateUse1: neither CUDA, MPS nor XPU, with torch's own
// torch.accelerator in front of it. Its memory is the host's, its kernels are the CPU's.
//
// Two devices of a GB. What is freed stays reserved, as a caching allocator keeps it, until the cache is emptied.
// STAND_IN_STATISTICS=0: the allocator keeps no account, as some backends do.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <mutex>
#include <unordered_map>

namespace {

constexpr auto KIND = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex DEVICES = 2;
thread_local c10::DeviceIndex current = 0;

struct Account {
  int64_t allocated = 0;
  int64_t peak = 0;
  int64_t reserved = 0;
};

constexpr size_t DEVICE_BYTES = size_t(1) << 30;

std::mutex lock;
std::unordered_map<void*, std::pair<c10::DeviceIndex, size_t>> blocks;
Account accounts[DEVICES];
bool used = false;

void release(void* pointer) {
  if (pointer == nullptr) {
    return;
  }
  {
    std::lock_guard<std::mutex> held(lock);
    auto found = blocks.find(pointer);
    accounts[found->second.first].allocated -= found->second.second;
    blocks.erase(found);
  }
  std::free(pointer);
}

c10::DataPtr take(size_t size) {
  void* pointer = nullptr;
  if (size != 0) {
    TORCH_CHECK(posix_memalign(&pointer, 64, size) == 0, "out of memory");
    std::lock_guard<std::mutex> held(lock);
    used = true;
    blocks[pointer] = {current, size};
    auto& account = accounts[current];
    account.allocated += size;
    account.peak = std::max(account.peak, account.allocated);
    account.reserved = std::max(account.reserved, account.allocated);
  }
  return {pointer, pointer, &release, c10::Device(KIND, current)};
}

struct Plain final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    return take(size);
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
};

struct Accounting final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t size) override {
    return take(size);
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
  bool initialized() override {
    return used;
  }
  void emptyCache(c10::MempoolId_t) override {
    std::lock_guard<std::mutex> held(lock);
    for (auto& account : accounts) {
      account.reserved = account.allocated;
    }
  }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> held(lock);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0].current = accounts[device].allocated;
    stats.allocated_bytes[0].peak = accounts[device].peak;
    stats.reserved_bytes[0].current = accounts[device].reserved;
    stats.reserved_bytes[0].peak = accounts[device].reserved;
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> held(lock);
    accounts[device].peak = accounts[device].allocated;
  }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> held(lock);
    return {DEVICE_BYTES - accounts[device].reserved, DEVICE_BYTES};
  }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return KIND;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    auto before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override {
    return {KIND, current};
  }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < DEVICES, "there are ", DEVICES, " devices");
    current = device.index() < 0 ? 0 : device.index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current = device.index() < 0 ? 0 : device.index();
  }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return stream;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return DEVICES;
  }
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return used;
  }
  c10::DeviceIndex deviceCount() const override {
    return DEVICES;
  }
  void setCurrentDevice(c10::DeviceIndex device) const override {
    current = device;
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return current;
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current, device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current, device);
  }
};

// -- operations: all that moves or makes memory; the CPU does the others -------------------------------

at::Tensor on_host(const at::Tensor& tensor) {
  if (tensor.device().is_cpu()) {
    return tensor;
  }
  return at::from_blob(
      tensor.numel() == 0 ? nullptr : const_cast<void*>(tensor.const_data_ptr()),
      tensor.sizes(),
      tensor.strides(),
      at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU));
}

at::Tensor empty(
    c10::IntArrayRef size,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device> device,
    std::optional<bool>,
    std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(device.value_or(at::Device(KIND, current)));
  return at::detail::empty_generic(
      size,
      c10::GetAllocator(KIND),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      dtype.value_or(at::get_default_dtype_as_scalartype()),
      format);
}

at::Tensor empty_strided(
    c10::IntArrayRef size,
    c10::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device> device,
    std::optional<bool>) {
  c10::DeviceGuard guard(device.value_or(at::Device(KIND, current)));
  return at::detail::empty_strided_generic(
      size,
      stride,
      c10::GetAllocator(KIND),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      dtype.value_or(at::get_default_dtype_as_scalartype()));
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool) {
  on_host(to).copy_(on_host(self));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}

at::Scalar local_scalar(const at::Tensor& self) {
  return on_host(self).item();
}

const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  auto* implementation = self.unsafeGetTensorImpl();
  implementation->set_sizes_contiguous(sizes);
  size_t need = self.numel() * self.element_size() + self.storage_offset() * self.element_size();
  const auto& storage = implementation->unsafe_storage();
  if (need > storage.nbytes()) {
    c10::DeviceGuard guard(self.device());
    auto data = c10::GetAllocator(KIND)->allocate(need);
    std::memcpy(data.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(data));
    storage.set_nbytes(need);
  }
  return self;
}

at::Tensor as_strided(
    const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  std::optional<int64_t> at_offset;
  if (offset.has_value()) {
    at_offset = offset->expect_int();
  }
  return at::native::as_strided_tensorimpl(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), at_offset);
}

at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

at::Tensor& set_storage(
    at::Tensor& self, at::Storage source, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::set_storage_cpu_(
      self, std::move(source), offset.expect_int(), C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", local_scalar);
  library.impl("resize_", resize);
  library.impl("as_strided", as_strided);
  library.impl("view", view);
  library.impl("set_.source_Storage_storage_offset", set_storage);
}

void on_the_cpu(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  at::native::cpu_fallback(operation, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

Plain plain;
Accounting accounting;
Hooks hooks;

struct Registered {
  Registered() {
    const char* statistics = std::getenv("STAND_IN_STATISTICS");
    bool keeps = statistics == nullptr || std::string(statistics) != "0";
    c10::SetAllocator(KIND, keeps ? static_cast<c10::Allocator*>(&accounting) : &plain);
    at::RegisterPrivateUse1HooksInterface(&hooks);
  }
} registered;

} // namespace
