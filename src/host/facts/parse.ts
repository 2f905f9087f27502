import { NestvmError } from '../../store/error.ts'
import { type CpuReading, capabilities, leafName, leaves, readCpuWords, readLeaves } from './cpu-reader.ts'
import { type Facts, factsSchema, type KvmModule } from './schema.ts'

/** The facts in what the script wrote. Throws `FACTS_INCOMPLETE` when it did not come to its end. */
export function parseFacts(output: string, mark: string, machine: string, level: number): Facts {
  const sections = new Map(
    `\n${output}`.split(`\n${mark} `).map((part): [string, string] => {
      const end = part.indexOf('\n')
      return end < 0 ? [part, ''] : [part.slice(0, end), part.slice(end + 1).trim()]
    }),
  )
  if (!sections.has('end')) {
    throw new NestvmError('FACTS_INCOMPLETE', `${machine} did not tell all that was asked`, { details: { machine } })
  }
  const text = (name: string) => sections.get(name) ?? ''
  const lines = (name: string) => text(name).split('\n').filter(Boolean)
  const pairs = (name: string) => Object.fromEntries(lines(name).map((line) => splitAt(line, ' ')))
  const colons = (name: string) => Object.fromEntries(lines(name).map((line) => splitAt(line, ':')))

  const cpuinfo = colons('cpuinfo')
  const part = cpuinfo['CPU part']
  const cpu = readCpu(text)
  const modules = readModules(lines('modules'), lines('parameters'))
  const ours = Object.entries(modules).filter(([name]) => name.startsWith('kvm'))
  const [user, uid = '', groups = ''] = lines('user')
  const dmi = Object.fromEntries(Object.entries(pairs('dmi')).map(([name, value]) => [name, String(value)]))
  const xen = pairs('xen')
  const config = lines('config').map(readOption)
  return factsSchema.parse({
    ...{ format: 'nestvm-facts', schema: 1, origin: 'collected', collectedAt: new Date().toISOString() },
    ...{ machine, level, arch: text('machine') },
    kernel: {
      ...{ release: text('release'), version: text('version'), arguments: words(text('cmdline')).filter(bears) },
      config: Object.fromEntries(config),
    },
    cpu: {
      vendor: cpuinfo.vendor_id ?? cpuinfo['CPU implementer'],
      model:
        cpuinfo['model name'] ?? cpuinfo.cpu ?? (part && `implementer ${cpuinfo['CPU implementer']}, part ${part}`),
      count: countCpus(text('cpus')),
      flags: words(cpuinfo.flags ?? cpuinfo.Features ?? cpuinfo.features ?? cpuinfo.isa),
      vmxFlags: words(cpuinfo['vmx flags']),
      cpuid: cpu?.leaves,
      platform: colons('platform').platform,
      mmu: colons('platform').MMU,
    },
    kvm: {
      modules: Object.fromEntries(ours),
      loadable: lines('loadable').map(moduleName),
      device: readDevice(lines('device')),
      registered: text('misc') !== '',
      openError: cpu?.openError,
      createVm: cpu?.createVm,
      capabilities: cpu?.capabilities ?? readCapabilities(pairs('capabilities')),
      runningVms: Number(text('vms')) || 0,
      counters: readCounters(pairs('counters')),
    },
    log: lines('log')[0] === 'readable' ? lines('log').slice(1) : undefined,
    ...{ dmi, deviceTree: pairs('tree') },
    ...{ detected: named(text('virt')), container: named(text('container')) },
    xen: xen['/sys/hypervisor/type']
      ? {
          type: xen['/sys/hypervisor/type'],
          guestType: xen['/sys/hypervisor/guest_type'],
          dom0: xen['/proc/xen/capabilities']?.includes('control_d') === true,
        }
      : undefined,
    devices: lines('devices'),
    otherModules: Object.keys(modules).filter((name) => !name.startsWith('kvm')),
    sysinfo: colons('sysinfo'),
    gic: text('gic').replace(/^GIC-(\d)$/, 'GICv$1') || undefined,
    clock: text('clock') || undefined,
    memory: readMemory(colons('memory'), text('thp')),
    qemu: lines('qemu').flatMap(readQemu),
    user: user
      ? { name: user, uid: Number(uid), groups: words(groups), kvmGroup: text('kvm-group') !== '' }
      : undefined,
  })
}

function readCpu(text: (section: string) => string): CpuReading | undefined {
  const numbers = (hex: string) => words(hex).map((word) => Number.parseInt(word, 16))
  const reading = text('reader') ? readCpuWords(numbers(text('reader'))) : undefined
  if (reading) return reading
  const device = numbers(text('cpuid'))
  if (device.length === 4 * leaves.length) return { leaves: readLeaves(device) }
  return text('cpuid-tool') ? { leaves: readCpuidTool(text('cpuid-tool')) } : undefined
}

/** `cpuid -r` says: `   0x00000001 0x00: eax=0x000306c3 ebx=0x00100800 ecx=0x7ffafbff edx=0xbfebfbff`. */
function readCpuidTool(text: string): CpuReading['leaves'] {
  const found = text.matchAll(/^\s*0x([0-9a-f]{8}) 0x([0-9a-f]+): eax=0x(\S+) ebx=0x(\S+) ecx=0x(\S+) edx=0x(\S+)/gm)
  const wanted = new Set(leaves.map(([leaf, subleaf]) => leafName(leaf, subleaf)))
  const named = [...found].map(([, leaf = '', subleaf = '', ...registers]): [string, string] => [
    leafName(Number.parseInt(leaf, 16), Number.parseInt(subleaf, 16)),
    registers.join(' '),
  ])
  return Object.fromEntries(named.filter(([name]) => wanted.has(name)))
}

function readModules(lines: readonly string[], parameters: readonly string[]): Record<string, KvmModule> {
  const modules = lines.map((line): [string, KvmModule] => {
    const [name = '', state, users, ...usedBy] = words(line)
    const prefix = `/sys/module/${name}/parameters/`
    const own = parameters.filter((parameter) => parameter.startsWith(prefix))
    const values = Object.fromEntries(own.map((parameter) => splitAt(parameter.slice(prefix.length), ' ')))
    return [name, { builtIn: state === 'built-in', users: Number(users) || 0, usedBy, parameters: values }]
  })
  return Object.fromEntries(modules)
}

function readDevice([listing, ...access]: readonly string[]): Facts['kvm']['device'] {
  const [mode, , owner, group] = words(listing)
  if (!mode || !owner || !group) return undefined
  return { mode, owner, group, readable: access.includes('readable'), writable: access.includes('writable') }
}

/** Of what perl asked, where no program of ours can. */
function readCapabilities(answers: Record<string, string>): Facts['kvm']['capabilities'] {
  const known = Object.entries(capabilities).filter(([, number]) => answers[number] !== undefined)
  return known.length > 0
    ? Object.fromEntries(known.map(([name, number]) => [name, Number(answers[number])]))
    : undefined
}

function readCounters(values: Record<string, string>): Facts['kvm']['counters'] {
  const exits = Number(values['/sys/kernel/debug/kvm/exits'])
  const nestedRun = Number(values['/sys/kernel/debug/kvm/nested_run'])
  return Number.isNaN(exits) || Number.isNaN(nestedRun) ? undefined : { exits, nestedRun }
}

/** `CONFIG_KVM=y`, and `# CONFIG_KVM is not set` as n. */
function readOption(line: string): [string, string] {
  const off = /^# CONFIG_(\w+) is not set$/.exec(line)?.[1]
  return off ? [off, 'n'] : splitAt(line.replace(/^CONFIG_/, ''), '=')
}

/** `0-3,8` is five. */
function countCpus(online: string): number {
  const counts = online.split(',').map((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return last - first + 1
  })
  return Math.max(
    1,
    counts.reduce((sum, count) => sum + (Number.isInteger(count) ? count : 0), 0),
  )
}

function readMemory(meminfo: Record<string, string>, thp: string): Facts['memory'] {
  const number = (name: string) => Number.parseInt(meminfo[name] ?? '0', 10)
  return {
    totalMiB: Math.floor(number('MemTotal') / 1024),
    availableMiB: Math.floor(number('MemAvailable') / 1024),
    hugePages: meminfo.HugePages_Total
      ? { total: number('HugePages_Total'), free: number('HugePages_Free'), sizeKiB: number('Hugepagesize') }
      : undefined,
    transparentHugePages: /\[(\w+)\]/.exec(thp)?.[1],
  }
}

function readQemu(line: string): Facts['qemu'] {
  const [path = '', said = ''] = splitAt(line, ' ')
  const version = /version (\d+\.\d+(?:\.\d+)?)/.exec(said)?.[1]
  return version ? [{ path, version }] : []
}

function bears(argument: string): boolean {
  return /^(kvm|nested|id_aa64|arm64[.]|mitigations|nox2apic|no-kvm|nohyp|hugepages|default_hugepages|transparent_|intel_iommu|clearcpuid|module_blacklist|modprobe[.]blacklist|nomodule|initcall_blacklist|maxcpus|nosmp|mem=|clocksource|tsc|console=|earlycon|xen|tboot|numa=)/.test(
    argument,
  )
}

function moduleName(path: string): string {
  return path
    .replace(/^.*\//, '')
    .replace(/\.ko.*$/, '')
    .replaceAll('-', '_')
}

function named(text: string): string | undefined {
  return text === '' || text === 'none' ? undefined : text
}

function words(text = ''): string[] {
  return text.split(/\s+/).filter(Boolean)
}

function splitAt(line: string, separator: string): [string, string] {
  const at = line.indexOf(separator)
  return at < 0 ? [line.trim(), ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()]
}
