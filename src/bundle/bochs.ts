import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { dataPaths } from '../store/paths.ts'
import { version } from '../store/version.ts'
import { architecture, suites } from './architecture.ts'
import { cpio, file } from './cpio.ts'
import { decompressor, type Module, readKernel } from './guest/kernel.ts'
import { moduleDir, moduleIndex } from './guest/module-tree.ts'
import { containerScript, machineScripts } from './guest/scripts.ts'
import { type ContentDirectory, currentDirectory, sha256 } from './manifest.ts'
import { PackageSources } from './packages.ts'
import { findOrCreate, inWorkDir, type SetupRequest, workDir } from './setup.ts'
import { fillPrograms, programIn, type Tools } from './tools.ts'
import { locate, type Unpacked } from './unpack.ts'

/** Bochs, which emulates an Intel processor with VMX, and what its guests boot from besides the bundle's own files. */
export interface BochsBundle {
  dir: string
  /** Starts of commands. */
  programs: Record<'bochs' | 'switch' | 'setpriv', readonly string[]>
  /** What they, and a QEMU in their network, find their parts by. */
  env: Readonly<Record<string, string>>
  /** Of libraries that QEMU loads for that network. */
  libraries: string
  firmware: string
  /** The kernel, to be entered without firmware. */
  vmlinux: string
  /** To be appended to the initramfs, behind the container's: its modules, and the scripts that know its devices. */
  machineInitrd: string
  /** To be appended where volumes are mounted. */
  volumeInitrd: string
}

const arch = 'x86_64'

/**
 * As data. Debian's cloud kernel has no driver for any network card that Bochs has: this is the same Linux, of the same
 * source package, with all drivers.
 */
const contents = {
  packages: [
    ...['bochs', 'bochs-term', 'bochsbios', 'vgabios', 'vde-switch', 'libvdeplug2t64'],
    ...['util-linux', 'ncurses-base'],
  ],
  programs: ['bochs-bin', 'vde_switch', 'setpriv'],
  kernel: { package: 'linux-image-amd64', suite: 'bookworm' },
  modules: {
    ...architecture(arch).modules,
    base: {
      network: ['e1000'],
      late: [],
      disk: ['ata_piix', 'sr_mod', 'squashfs'],
      other: ['cpuid'],
    },
    container: ['overlay', 'fuse'],
    kvm: { vmx: 'kvm_intel' },
  },
}

/** Plugins that play sounds load libraries which nothing here needs. */
const unused = /^libbx_sound(?!dummy)/

const scripts = [
  ...machineScripts({ ...architecture(arch), modules: contents.modules }, undefined, '/dev/sr0'),
  { path: 'etc/nestvm/container', text: containerScript(contents), mode: 0o644 },
]

/** To be raised when the code here makes something else of the same inputs. */
const revision = 1

const recipe = sha256(JSON.stringify([revision, suites, contents, scripts]))

type BochsRequest = Omit<SetupRequest, 'guestArch'>

/**
 * Bochs for a host, which is got first where it is not there yet. Throws what `ensureBundle` throws, and
 * `UNSUPPORTED_ARCH` on hosts of another architecture.
 */
export async function ensureBochs(request: BochsRequest, tools: Tools): Promise<BochsBundle> {
  const { hostArch, refresh, progress, signal } = request
  if (hostArch !== arch) {
    throw new NestvmError('UNSUPPORTED_ARCH', `the processor of another vendor is emulated on ${arch} only`, {
      details: { arch: hostArch },
    })
  }
  const ready = process.env.NESTVM_BUNDLE
  if (ready) return readyBochs(resolve(ready))
  const find = async () => (refresh ? undefined : await currentDirectory('bochs', arch, recipe))
  const found = await find()
  if (found) return bochsIn(found.dir)

  const onWait = ({ pid }: { pid: number }) =>
    progress?.({ phase: 'wait', label: `another set-up, process ${pid}`, bytesDone: 0 })
  const get = async (): Promise<ContentDirectory> => {
    const made = await find()
    if (made) return made
    const [part] = await inWorkDir(request, 'bochs', async (scratch) => [await make(request, tools, scratch)])
    if (!part) throw new RangeError('nothing was made')
    return part
  }
  const options = { onWait, signal, timeoutMs: 60 * 60_000 }
  const directory = await withLock(join(dataPaths().bundle, 'lock'), get, options)
  return bochsIn(directory.dir)
}

async function readyBochs(dir: string): Promise<BochsBundle> {
  const found = await currentDirectory('bochs', arch, recipe, { bundle: dir })
  if (found) return bochsIn(found.dir)
  throw new NestvmError(
    'BUNDLE_MISMATCH',
    `${dir}, which NESTVM_BUNDLE names, holds no Bochs of this version of nestvm (${version})`,
    { hint: 'unset NESTVM_BUNDLE, or leave out --cpu-vendor', details: { path: dir } },
  )
}

function bochsIn(dir: string): BochsBundle {
  const libraries = join(dir, 'lib')
  return {
    dir,
    programs: {
      bochs: programIn(dir, arch, 'bochs-bin'),
      switch: programIn(dir, arch, 'vde_switch'),
      setpriv: programIn(dir, arch, 'setpriv'),
    },
    env: {
      LTDL_LIBRARY_PATH: join(dir, 'plugins'),
      VDEPLUGIN_PATH: join(dir, 'vdeplug'),
      TERM: 'ansi',
      TERMINFO: join(dir, 'terminfo'),
    },
    libraries,
    firmware: join(dir, 'firmware'),
    vmlinux: join(dir, 'vmlinux'),
    machineInitrd: join(dir, 'machine.cpio'),
    volumeInitrd: join(dir, 'volume.cpio'),
  }
}

async function make(request: BochsRequest, tools: Tools, scratch: string): Promise<ContentDirectory> {
  const sources = new PackageSources(request, workDir(), scratch)
  const packages = [
    ...(await sources.plan(arch, contents.packages)),
    ...(await sources.planKernel(arch, contents.kernel)),
  ]
  await sources.get([{ arch, packages }])
  return findOrCreate(request, { kind: 'bochs', arch, recipe, packages }, async (dir) => {
    const unpacked = sources.unpacked(arch)
    await fillEmulator(unpacked, dir)
    return fillMachine(unpacked, decompressor(request.machine, tools, scratch, request.signal), dir)
  })
}

async function fillEmulator(packages: Unpacked, dir: string): Promise<void> {
  const { triplet } = packages.architecture
  const pluginDir = await locate(packages, `usr/lib/${triplet}/bochs/plugins`)
  const plugins = (await readdir(pluginDir)).filter((name) => name.endsWith('.so') && !unused.test(name))
  const copies: [string, string][] = [
    ...plugins.map((name): [string, string] => [`plugins/${name}`, join(pluginDir, name)]),
    ['vdeplug/libvdeplug_vde.so', await locate(packages, `usr/lib/${triplet}/vdeplug/libvdeplug_vde.so`)],
    ['firmware/BIOS-bochs-latest', await locate(packages, 'usr/share/bochs/BIOS-bochs-latest')],
    ['firmware/VGABIOS-lgpl-latest', await locate(packages, 'usr/share/vgabios/vgabios.bin')],
    ['terminfo/a/ansi', await locate(packages, 'usr/share/terminfo/a/ansi', 'lib/terminfo/a/ansi')],
  ]
  const loaded = copies.map(([, from]) => from).filter((path) => basename(path).endsWith('.so'))
  await fillPrograms(packages, dir, contents.programs, loaded)
  for (const [to, from] of copies) {
    await mkdir(dirname(join(dir, to)), { recursive: true, mode: 0o700 })
    await copyFile(from, join(dir, to))
  }
}

async function fillMachine(
  packages: Unpacked,
  decompress: Parameters<typeof readKernel>[1],
  dir: string,
): Promise<{ kernelRelease: string }> {
  const kernel = await readKernel(packages, decompress)
  const { base, container, kvm, layer, volume } = contents.modules
  const names = [Object.values(base), container, Object.values(kvm), layer.hypervisor, layer.network].flat(2)
  const modules = await kernel.modules(names)
  const present = new Set(modules.map(({ name }) => name))
  const volumeModules = (await kernel.modules(volume)).filter(({ name }) => !present.has(name))
  const under = moduleDir(kernel.release)
  const entries = (list: readonly Module[]) => list.map(({ name, data }) => file(`${under}/${name}.ko`, data))
  const machine = [
    ...scripts.map(({ path, text, mode }) => file(path, text, mode)),
    ...entries(modules),
    ...[...moduleIndex([...modules, ...volumeModules], [])].map(([name, text]) => file(`${under}/${name}`, text)),
  ]
  const files = bochsIn(dir)
  await writeFile(files.vmlinux, kernel.vmlinux)
  await writeFile(files.machineInitrd, cpio(machine))
  await writeFile(files.volumeInitrd, cpio(entries(volumeModules)))
  return { kernelRelease: kernel.release }
}
