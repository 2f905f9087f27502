import * as z from 'zod'
import { answerSchema } from '../kvm.ts'

const strings = z.record(z.string(), z.string()).default({})

const moduleSchema = z.object({
  builtIn: z.boolean().default(false),
  /** What keeps it loaded: other modules, and descriptors of VMs and their processors. */
  users: z.int().default(0),
  usedBy: z.array(z.string()).default([]),
  /** As sysfs shows them: bools as Y or N, ints as digits. */
  parameters: strings,
})

const deviceSchema = z.object({
  /** As `ls -l` shows it: `crw-rw----`. */
  mode: z.string(),
  owner: z.string(),
  group: z.string(),
  /** To the user who asked. */
  readable: z.boolean(),
  writable: z.boolean(),
})

/** What a tiny guest said. */
const probeSchema = answerSchema.omit({ key: true }).partial({ testedAt: true })

/** A Windows host's own words on one VM: docs/doctor.md has the PowerShell that writes them. */
const windowsSchema = z.object({
  /** Of Windows: 14393 is Server 2016, 20348 Server 2022, 22000 the first Windows 11. */
  build: z.int(),
  server: z.boolean(),
  vm: z.object({
    name: z.string(),
    /** The configuration version, such as `9.3`. */
    version: z.string(),
    off: z.boolean(),
    exposed: z.boolean(),
    dynamicMemory: z.boolean(),
    macSpoofing: z.boolean(),
  }),
})

/**
 * All that the checks look at of one machine, in one document. What a machine does not tell is absent or empty. It
 * holds a user's name and groups and what the machine was asked for by, but no serial numbers or addresses.
 */
export const factsSchema = z.object({
  format: z.literal('nestvm-facts'),
  schema: z.literal(1),
  /** `derived`: written from what documents say of such a machine rather than collected on one. */
  origin: z.enum(['collected', 'derived']),
  source: z.string().optional(),
  collectedAt: z.string().optional(),
  /** `host`, `ssh://user@server`, or a guest's path. */
  machine: z.string(),
  /** As nestvm counts: 0 for a host, whatever that itself runs under. */
  level: z.int().min(0).default(0),
  /** `uname -m`. */
  arch: z.string(),
  kernel: z.object({
    release: z.string(),
    version: z.string().default(''),
    /** Of its arguments those that bear on virtualization: others may hold secrets. */
    arguments: z.array(z.string()).default([]),
    /** Options about virtualization, without their CONFIG_; empty where the configuration cannot be read. */
    config: strings,
  }),
  cpu: z.object({
    vendor: z.string().optional(),
    model: z.string().optional(),
    count: z.int().positive().default(1),
    /** Of the first processor: `flags`, `Features`, `features` or `isa`. */
    flags: z.array(z.string()).default([]),
    /** The line `vmx flags`. */
    vmxFlags: z.array(z.string()).default([]),
    /** Raw CPUID, where it could be read: `leaf:subleaf` to eax, ebx, ecx and edx, all in hexadecimal. */
    cpuid: strings,
    /** On ppc64: `PowerNV`, `pSeries`, and `Radix` or `Hash`. */
    platform: z.string().optional(),
    mmu: z.string().optional(),
  }),
  kvm: z
    .object({
      /** Those that are in the kernel now. */
      modules: z.record(z.string(), moduleSchema).default({}),
      /** Those that are there to be loaded. */
      loadable: z.array(z.string()).default([]),
      device: deviceSchema.optional(),
      /** KVM answers in this kernel, whether or not there is a device file: /proc/misc. */
      registered: z.boolean().default(false),
      /** The error by which the device does not open. */
      openError: z.string().optional(),
      /** `ok`, or the error of KVM_CREATE_VM. */
      createVm: z.string().optional(),
      capabilities: z.record(z.string(), z.int()).optional(),
      /** VMs that run now; only those of the user unless it is root. */
      runningVms: z.int().default(0),
      /** KVM's own, of all VMs since the module was loaded; for root only. */
      counters: z.object({ exits: z.number(), nestedRun: z.number() }).optional(),
    })
    .prefault({}),
  /** Lines about virtualization; absent where this user may not read the kernel's log. */
  log: z.array(z.string()).optional(),
  /** DMI: sys_vendor, product_name and so on. */
  dmi: strings,
  /** `model`, `compatible` and `hypervisor/compatible`. */
  deviceTree: strings,
  /** What systemd-detect-virt says. */
  detected: z.string().optional(),
  /** The container that the collector ran in, which shows only a part of the machine. */
  container: z.string().optional(),
  xen: z.object({ type: z.string().optional(), guestType: z.string().optional(), dom0: z.boolean() }).optional(),
  /** Device files and modules of hypervisors: /dev/acrn_hsm, /dev/mshv, vboxdrv, vmmon, hv_vmbus. */
  devices: z.array(z.string()).default([]),
  otherModules: z.array(z.string()).default([]),
  /** s390x: /proc/sysinfo, without what names the machine. */
  sysinfo: strings,
  /** arm64: `GICv2` or `GICv3`, as /proc/interrupts names it. */
  gic: z.string().optional(),
  clock: z.string().optional(),
  memory: z.object({
    totalMiB: z.int(),
    availableMiB: z.int(),
    hugePages: z.object({ total: z.int(), free: z.int(), sizeKiB: z.int() }).optional(),
    transparentHugePages: z.string().optional(),
  }),
  /** Those that the machine has on its own. */
  qemu: z.array(z.object({ path: z.string(), version: z.string() })).default([]),
  user: z
    .object({
      name: z.string(),
      uid: z.int(),
      groups: z.array(z.string()).default([]),
      /** Whether there is a group kvm. */
      kvmGroup: z.boolean().default(false),
    })
    .optional(),
  probe: probeSchema.optional(),
  /** Why no tiny guest was run, where /dev/kvm is open. */
  probeError: z.string().optional(),
  windows: windowsSchema.optional(),
})

export type Facts = z.output<typeof factsSchema>
export type KvmModule = z.output<typeof moduleSchema>
