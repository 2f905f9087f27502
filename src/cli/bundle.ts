import { resolve } from 'node:path'
import type { BochsBundle } from '../bundle/bochs.ts'
import type { Bundle } from '../bundle/bundle.ts'
import type { KernelChoice } from '../bundle/manifest.ts'
import type { Progress } from '../bundle/progress.ts'
import type { EngineName } from '../engine/capability.ts'
import type { Arch } from '../host/arch.ts'
import type { Image } from '../image/record.ts'
import type { Host } from '../stack/host.ts'
import { NestvmError } from '../store/error.ts'
import type { Session } from './session.ts'

/** This host's bundle for guests of an architecture, its own unless said, got first if need be. */
export async function theBundle(
  { context }: Session,
  { arch, kernel, refresh }: { arch?: Arch; kernel?: KernelChoice; refresh?: boolean } = {},
): Promise<Bundle> {
  const { ensureBundle } = await import('../bundle/bundle.ts')
  const { hostArch } = await import('../host/arch.ts')
  const guests = { hostArch: hostArch(), guestArch: arch ?? hostArch() }
  const request = { ...guests, machine: context.host, signal: context.signal, kernel, refresh }
  return withProgress((progress) => ensureBundle({ ...request, progress }))
}

/** What guests on Bochs need besides, got first if need be. */
export async function theBochs({ context }: Session, { tools }: Bundle, refresh?: boolean): Promise<BochsBundle> {
  const { ensureBochs } = await import('../bundle/bochs.ts')
  const { hostArch } = await import('../host/arch.ts')
  const request = { hostArch: hostArch(), machine: context.host, signal: context.signal, refresh }
  return withProgress((progress) => ensureBochs({ ...request, progress }, tools))
}

/** The bundle if it is there; nothing is got. Throws `BUNDLE_MISMATCH` where there is none. */
export async function presentBundle(): Promise<Bundle> {
  const { currentBundle } = await import('../bundle/bundle.ts')
  const { hostArch } = await import('../host/arch.ts')
  const bundle = await currentBundle(hostArch(), hostArch())
  if (bundle) return bundle
  throw new NestvmError('BUNDLE_MISMATCH', 'there is no bundle yet', { hint: 'nestvm setup' })
}

/**
 * What `--arch` says; without it, guests in a guest have its architecture, and others the host's. Throws
 * `UNSUPPORTED_ARCH` for guests in a guest of another one.
 */
export async function guestArch({ on = '', arch }: { on?: string; arch?: Arch }): Promise<Arch | undefined> {
  const { isHostUrl } = await import('../machine/ssh-settings.ts')
  if (on === '' || isHostUrl(on)) return arch
  const { runningRecord } = await import('../stack/record.ts')
  const around = await runningRecord(on)
  if (arch === undefined || arch === around.arch) return around.arch
  throw new NestvmError('UNSUPPORTED_ARCH', `${on} runs guests of its own architecture, ${around.arch}`, {
    hint: 'leave out --arch, or start another outermost guest',
    details: { machine: on, arch },
    exitStatus: 2,
  })
}

/**
 * The kernel that `--kernel-profile` names, undefined for Debian's; guests in a guest have its kernel. Throws
 * `KERNEL_NOT_BUILT`, `NO_SUCH_PROFILE`, `BAD_PROFILE`, and `UNSUPPORTED` for another one than that of the guest around.
 */
export async function guestKernel({
  on = '',
  arch,
  engine,
  kernelProfile,
}: {
  on?: string
  arch?: Arch
  engine?: EngineName
  kernelProfile?: string
} = {}): Promise<KernelChoice | undefined> {
  const { isHostUrl } = await import('../machine/ssh-settings.ts')
  const inGuest = on !== '' && !isHostUrl(on)
  if (kernelProfile === undefined && !inGuest) return undefined
  const { chosenKernel } = await import('../kernel/choice.ts')
  const { hostArch } = await import('../host/arch.ts')
  if (!inGuest) return chosenKernel(kernelProfile ?? '', arch ?? hostArch(), engine)
  const { runningRecord } = await import('../stack/record.ts')
  const around = await runningRecord(on)
  if (kernelProfile === undefined) return around.kernel
  const wanted = await chosenKernel(kernelProfile, around.arch, engine)
  if (wanted?.name === around.kernel?.name) return around.kernel
  throw new NestvmError('UNSUPPORTED', `guests in ${on} have its kernel, ${around.kernel?.name ?? "Debian's"}`, {
    hint: 'leave out --kernel-profile, or give it to the outermost guest',
    details: { machine: on, kernel: around.kernel?.name },
    exitStatus: 2,
  })
}

/**
 * The bundle of the host that a run starts on, given what `--on` says: that of this host, `here`, or a copy of it. With
 * the QEMU that `--qemu` or NESTVM_QEMU names, which is one of that host.
 */
export async function bundleOn(
  own: Session,
  here: Bundle,
  { on = '', qemu }: { on?: string; qemu?: string } = {},
): Promise<Bundle> {
  const { isHostUrl } = await import('../machine/ssh-settings.ts')
  const { thisHost } = await import('../stack/host.ts')
  const remote = isHostUrl(on)
  if (on !== '' && !remote) {
    if (qemu === undefined) return here
    throw new NestvmError('UNSUPPORTED', '--qemu is for the outermost level, which runs already', { exitStatus: 2 })
  }
  const host = await own.context.hostNamed(remote ? on : thisHost)
  const there = remote ? await bundleCopy(own, here, host) : here
  const program = qemu ?? process.env.NESTVM_QEMU
  if (!program) return there
  const { withQemu } = await import('../bundle/own-qemu.ts')
  return withQemu(there, host.machine, program.includes('/') && !remote ? resolve(program) : program)
}

async function bundleCopy(own: Session, here: Bundle, { machine, bundleDir }: Host): Promise<Bundle> {
  const { ensureRemoteBundle } = await import('../bundle/remote.ts')
  const { hostArch } = await import('../host/arch.ts')
  const request = { local: own.context.host, remote: machine, remoteDir: bundleDir, signal: own.context.signal }
  return withProgress((progress) => ensureRemoteBundle(here, hostArch(), { ...request, progress }))
}

/** The path of an image's squashfs on the host that its disk is opened on. */
export async function imageOn(
  own: Session,
  here: Bundle,
  image: Pick<Image, 'digest' | 'size' | 'squashfs'>,
  host: Host,
): Promise<string> {
  const { thisHost } = await import('../stack/host.ts')
  if (host.name === thisHost) return image.squashfs
  const { ensureRemoteImage } = await import('../image/remote.ts')
  const request = { local: own.context.host, remote: host.machine, remoteDir: host.imagesDir, tools: here.tools }
  return withProgress((progress) => ensureRemoteImage(image, { ...request, progress, signal: own.context.signal }))
}

async function withProgress<T>(work: (progress: Progress) => Promise<T>): Promise<T> {
  const { showProgress } = await import('./progress.ts')
  const { progress, done } = showProgress()
  return work(progress).finally(done)
}
