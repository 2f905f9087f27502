import * as z from 'zod'

/*
 * What Firecracker's published API description (src/firecracker/swagger/firecracker.yaml, 1.16.1) says of the requests
 * that nestvm makes, in our own words: every property with its type, what is required, and nothing else. Where the
 * program is stricter than the description, as it is: an unknown property is refused (serde's deny_unknown_fields).
 */

const bucket = z.strictObject({
  size: z.int().min(0),
  refill_time: z.int().min(0),
  one_time_burst: z.int().min(0).optional(),
})
const limiter = z.strictObject({ bandwidth: bucket.optional(), ops: bucket.optional() })

const cpuidModifier = z.strictObject({
  leaf: z.string(),
  subleaf: z.string(),
  flags: z.int(),
  modifiers: z.array(
    z.strictObject({ register: z.enum(['eax', 'ebx', 'ecx', 'edx']), bitmap: z.string().regex(/^0b[01x]{32}$/) }),
  ),
})

/** `before`: only until the guest has started; `after`: only from then; `fresh`: before anything else was told. */
export interface Endpoint {
  when: 'before' | 'after' | 'fresh' | 'ever'
  body: z.ZodType
}

/** By method and path; `*` stands for an id, which the body has in the property `id` too. */
export const endpoints: Record<string, Endpoint & { id?: string }> = {
  'PUT /machine-config': {
    when: 'before',
    body: z.strictObject({
      vcpu_count: z.int().min(1).max(32),
      mem_size_mib: z.int(),
      smt: z.boolean().optional(),
      cpu_template: z.enum(['C3', 'T2', 'T2S', 'T2CL', 'T2A', 'V1N1', 'None']).optional(),
      track_dirty_pages: z.boolean().optional(),
      huge_pages: z.enum(['None', '2M']).optional(),
    }),
  },
  'PUT /cpu-config': {
    when: 'before',
    body: z.strictObject({
      kvm_capabilities: z.array(z.string()).optional(),
      cpuid_modifiers: z.array(cpuidModifier).optional(),
      msr_modifiers: z.array(z.strictObject({ addr: z.string(), bitmap: z.string() })).optional(),
      reg_modifiers: z.array(z.strictObject({ addr: z.string(), bitmap: z.string() })).optional(),
      vcpu_features: z.array(z.strictObject({ index: z.int(), bitmap: z.string() })).optional(),
    }),
  },
  'PUT /boot-source': {
    when: 'before',
    body: z.strictObject({
      kernel_image_path: z.string(),
      initrd_path: z.string().optional(),
      boot_args: z.string().optional(),
    }),
  },
  'PUT /drives/*': {
    when: 'before',
    id: 'drive_id',
    body: z.strictObject({
      drive_id: z.string(),
      is_root_device: z.boolean(),
      partuuid: z.string().optional(),
      cache_type: z.enum(['Unsafe', 'Writeback']).optional(),
      is_read_only: z.boolean().optional(),
      path_on_host: z.string().optional(),
      rate_limiter: limiter.optional(),
      io_engine: z.enum(['Sync', 'Async']).optional(),
      socket: z.string().optional(),
    }),
  },
  'PUT /network-interfaces/*': {
    when: 'before',
    id: 'iface_id',
    body: z.strictObject({
      iface_id: z.string(),
      host_dev_name: z.string(),
      guest_mac: z.string().optional(),
      mtu: z.int().min(68).max(65535).optional(),
      rx_rate_limiter: limiter.optional(),
      tx_rate_limiter: limiter.optional(),
    }),
  },
  'PUT /actions': {
    when: 'ever',
    body: z.strictObject({ action_type: z.enum(['FlushMetrics', 'InstanceStart', 'SendCtrlAltDel']) }),
  },
  'PATCH /vm': { when: 'after', body: z.strictObject({ state: z.enum(['Paused', 'Resumed']) }) },
  'PUT /snapshot/create': {
    when: 'after',
    body: z.strictObject({
      mem_file_path: z.string(),
      snapshot_path: z.string(),
      snapshot_type: z.enum(['Full', 'Diff']).optional(),
    }),
  },
  'PUT /snapshot/load': {
    when: 'fresh',
    body: z
      .strictObject({
        snapshot_path: z.string(),
        enable_diff_snapshots: z.boolean().optional(),
        track_dirty_pages: z.boolean().optional(),
        mem_file_path: z.string().optional(),
        mem_backend: z.strictObject({ backend_type: z.enum(['File', 'Uffd']), backend_path: z.string() }).optional(),
        resume_vm: z.boolean().optional(),
        network_overrides: z.array(z.strictObject({ iface_id: z.string(), host_dev_name: z.string() })).optional(),
        vsock_override: z.strictObject({ uds_path: z.string() }).optional(),
        clock_realtime: z.boolean().optional(),
      })
      .refine((body) => (body.mem_file_path === undefined) !== (body.mem_backend === undefined)),
  },
}
