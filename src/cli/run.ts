import { randomBytes } from 'node:crypto'
import { Command, Option } from 'commander'
import type { Bundle } from '../bundle/bundle.ts'
import { type InnermostEngine, innermostEngines } from '../engine/capability.ts'
import { type Arch, arches } from '../host/arch.ts'
import { type CpuVendor, cpuVendors } from '../host/vendor.ts'
import type { Program } from '../stack/inside.ts'
import type { Planned, RunRequest } from '../stack/run.ts'
import type { StartedGuest } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'
import { printJson, type Session, session } from './session.ts'
import { afterDashes, collect, collectEnv, parseCount, parseDuration, parseMemory } from './values.ts'

interface RunOptions {
  depth: number
  on?: string
  arch?: Arch
  accel: 'auto' | 'kvm' | 'tcg'
  engine: InnermostEngine
  cpuVendor?: CpuVendor
  qemu?: string
  firecracker?: string
  kernelProfile?: string
  name?: string
  detach?: boolean
  interactive?: boolean
  tty?: boolean
  env: Record<string, string>
  workdir?: string
  user?: string
  publish: string[]
  volume: string[]
  network: RunRequest['network']
  disk?: number
  privileged?: boolean
  pull: 'missing' | 'always' | 'never'
  cpus: number
  memory?: number
  nested?: boolean
  migratable?: string | true
  snapshot: boolean
  timeout?: number
  dryRun?: boolean
  facts?: string
  json?: boolean
}

export function runCommand(): Command {
  return new Command('run')
    .description('Start a virtual machine, or one inside another, and run a command or an image in the innermost.')
    .usage('[options] [IMAGE] [-- COMMAND...]')
    .option('--depth <n>', 'number of VM levels', parseCount, 1)
    .option('--on <machine>', 'a guest hypervisor, or ssh://[user@]host[:port], to start on (default: this host)')
    .addOption(new Option('--arch <arch>', "the guests' architecture (default: this host's)").choices(arches))
    .addOption(
      new Option('--accel <how>', 'how the outermost level runs').choices(['auto', 'kvm', 'tcg']).default('auto'),
    )
    .addOption(
      new Option('--cpu-vendor <vendor>', "whose x86 processor, emulated if need be (default: the host's)").choices(
        cpuVendors,
      ),
    )
    .addOption(
      new Option('--engine <engine>', 'what runs the innermost guest').choices(innermostEngines).default('qemu'),
    )
    .addOption(
      new Option('--firecracker <path>', 'with this Firecracker (default: NESTVM_FIRECRACKER)').implies({
        engine: 'firecracker',
      }),
    )
    .option('--qemu <path>', "another QEMU for the outermost level (default: NESTVM_QEMU, or the bundle's)")
    .option('--kernel-profile <name>', 'a kernel that was built (nestvm kernel build), at every level')
    .option('--name <name>', 'name of the outermost new guest (default: made up)')
    .option('-d, --detach', 'leave it running and print its path')
    .option('-i, --interactive', 'pass standard input to the command')
    .option('-t, --tty', 'give the command a terminal')
    .option('-e, --env <KEY=VALUE>', 'set a variable for the command', collectEnv, {})
    .option('-w, --workdir <dir>', 'where the command runs')
    .option('-v, --volume <host:guest[:ro]>', 'show a directory of this host to the guest', collect, [])
    .option('-p, --publish <[ip:]host:guest[/udp]>', 'lead a port of this host to one of the guest', collect, [])
    .addOption(
      new Option('--network <how>', 'user: out by connections of your own; bridged: by a bridge (root); none')
        .choices(['user', 'bridged', 'none'])
        .default('user'),
    )
    .option('-u, --user <user[:group]>', 'whom the command runs as, by name or number')
    .option('--cpus <n>', 'virtual CPUs at every level', parseCount, 1)
    .option('--memory <size>', 'memory of the innermost guest (default: 512M, with --nested 1G)', parseMemory)
    .option('--disk <size>', 'keep what the container writes on a disk of this size (default: in RAM)', parseMemory)
    .addOption(
      new Option('--pull <when>', 'whether to get the image')
        .choices(['missing', 'always', 'never'])
        .default('missing'),
    )
    .option('--nested', 'let this guest be a hypervisor, with /dev/kvm in it')
    .option(
      '--migratable [=model]',
      'give it a processor that others can offer too (default: the nearest to what is there)',
    )
    .option('--privileged', 'let the container do what the guest itself can')
    .option('--no-snapshot', 'start anew, and save nothing')
    .option(
      '--timeout <duration>',
      'end it after this time, with exit status 124; with -d limit its start',
      parseDuration,
    )
    .option('--dry-run', 'print the plan and the engine command of each level, and start nothing')
    .addOption(
      new Option('--facts <file>', 'with --dry-run: plan for the machine that these facts are of').conflicts([
        'on',
        'qemu',
        'migratable',
      ]),
    )
    .option('--json', 'print one JSON document')
    .allowExcessArguments()
    .addHelpText('after', examples)
    .action((options: RunOptions, command: Command) =>
      session(options.json === true, (own) => runIt(own, options, operands(command))),
    )
}

const examples = `
Examples:
  $ nestvm run -- uname -a                    one VM
  $ nestvm run --depth 3 -- echo nested       a VM in a VM in a VM
  $ nestvm run alpine -- cat /etc/os-release  a container in a VM
  $ nestvm run -it -- sh                      a shell in a VM
  $ nestvm run -d --name outer --nested       a guest hypervisor that stays
  $ nestvm run --on outer -- uname -a         a nested guest in it`

interface Operands {
  image?: string
  /** What follows `--`. */
  argv?: string[]
}

function operands(command: Command): Operands {
  const after = afterDashes()
  const [image, ...more] = command.args.slice(0, command.args.length - (after?.length ?? 0))
  if (more.length > 0) {
    command.error(`error: a command follows --; write: nestvm run [options] ${image} -- ${more.join(' ')}`, {
      exitCode: 2,
    })
  }
  return { image, argv: after && after.length > 0 ? after : undefined }
}

async function runIt(own: Session, options: RunOptions, { image, argv }: Operands): Promise<number> {
  const { planRun } = await import('../stack/run.ts')
  const { showStep } = await import('./progress.ts')
  if (!argv && !image && !options.detach && !options.dryRun && !options.interactive) {
    throw new NestvmError('NO_COMMAND', 'there is no command to run', {
      hint: 'nestvm run -- COMMAND, or nestvm run IMAGE, or -d to leave the machine running',
      exitStatus: 2,
    })
  }
  if (options.facts !== undefined && !options.dryRun) {
    throw new NestvmError('UNSUPPORTED', '--facts is for another machine, where nothing can be started from here', {
      hint: 'add --dry-run',
      exitStatus: 2,
    })
  }
  const { bundleOn, guestArch, guestKernel, theBochs, theBundle } = await import('./bundle.ts')
  const arch = await guestArch(options)
  const kernel = await guestKernel({ ...options, arch })
  const here = await theBundle(own, { arch, kernel })
  const bundle = await bundleOn(own, here, options)
  const request = await asRequest(options, argv ?? (image ? [] : undefined))
  request.firecracker = await firecrackerFor(options, bundle.arch)
  if (options.facts !== undefined) {
    const { readFacts } = await import('../host/facts/file.ts')
    request.facts = await readFacts(options.facts)
  }
  const program: Program = {
    argv: argv ?? (image ? [] : ['sh']),
    env: options.env,
    cwd: options.workdir,
    user: options.user,
  }
  if (image) request.image = await imageFor(own, here, image, options, program)
  request.onChange = (line) => console.error(`nestvm: ${line}`)
  request.onLevel = ({ level, path, accel }) => showStep(`starting L${level} (${path}, ${accel})`)
  const planned = await planRun(own.context, bundle, request)
  if (planned.levels[0]?.engine === 'bochs') {
    if (kernel) {
      throw new NestvmError('UNSUPPORTED', 'a guest on Bochs has a kernel of its own, whose modules its system loads', {
        hint: 'leave out --kernel-profile or --cpu-vendor',
        exitStatus: 2,
      })
    }
    request.bochs = await theBochs(own, bundle)
  }
  if (options.dryRun) return printPlan(bundle, planned, request, options.json === true)
  const limit = options.timeout
  const timer = limit && setTimeout(() => own.stop(timedOut(limit)), limit)
  const { guests, renew } = await startWith(own, bundle, planned, request, options).finally(() => showStep(''))
  if (options.detach) clearTimeout(timer)
  const reason = guests[0]?.record.networkReason
  if (reason) console.error(`nestvm: the guests have no way out to the network: ${reason}`)
  if (!options.detach) return foreground(own, guests, options, program, renew)
  try {
    await renew()
    return await detach(own, guests, options, argv || image ? program : undefined)
  } catch (error) {
    const { destroy } = await import('../stack/stop.ts')
    if (guests[0]?.record.owner) await destroy(own.context, guests[0].record)
    throw error
  }
}

async function startWith(
  own: Session,
  bundle: Bundle,
  planned: Planned,
  request: RunRequest,
  { snapshot }: RunOptions,
) {
  if (!snapshot) {
    const { startStack } = await import('../stack/run.ts')
    return { guests: await startStack(own.context, bundle, planned, request), renew: async () => {} }
  }
  const { startWarm } = await import('../snapshot/warm.ts')
  const { showStep } = await import('./progress.ts')
  return startWarm(own.context, bundle, planned, request, {
    onNote: (line) => console.error(`nestvm: ${line}`),
    onSave: () => showStep('saving it for the next start'),
  })
}

async function asRequest(options: RunOptions, argv: string[] | undefined): Promise<RunRequest> {
  const { parsePort } = await import('../network/ports.ts')
  const { parseVolume } = await import('../volume/request.ts')
  return {
    depth: options.depth,
    on: options.on ?? '',
    name: options.name ?? `vm-${randomBytes(3).toString('hex')}`,
    accel: options.accel,
    cpuVendor: options.cpuVendor,
    cpus: options.cpus,
    diskMiB: options.disk,
    network: options.network,
    ports: options.publish.map(parsePort),
    volumes: options.volume.map(parseVolume),
    memoryMiB: options.memory ?? (options.nested ? 1024 : 512),
    nested: options.nested === true,
    migratable: options.migratable === true ? '' : options.migratable,
    detach: options.detach === true,
    command: argv,
  }
}

/** Throws `NO_FIRECRACKER` where no program is named. */
async function firecrackerFor({ engine, firecracker }: RunOptions, arch: Arch): Promise<RunRequest['firecracker']> {
  if (engine !== 'firecracker') return undefined
  const path = firecracker ?? process.env.NESTVM_FIRECRACKER
  if (path) return (await import('../engine/firecracker/program.ts')).readFirecracker(path, arch)
  throw new NestvmError('NO_FIRECRACKER', 'nestvm brings no Firecracker of its own', {
    hint: 'name the program by --firecracker or NESTVM_FIRECRACKER',
    exitStatus: 2,
  })
}

/** Gets the image, and checks that the program can run in it, before anything starts. */
async function imageFor(
  own: Session,
  here: Bundle,
  reference: string,
  { on, pull, privileged = false, json }: RunOptions,
  program: Program,
): Promise<NonNullable<RunRequest['image']>> {
  const { ensureImage } = await import('../image/image.ts')
  const { showImageProgress } = await import('./image-progress.ts')
  const { checkFirst } = await import('../stack/inside.ts')
  const { imageOn } = await import('./bundle.ts')
  const { whereTo } = await import('../stack/run.ts')
  const { host: machine, signal } = own.context
  // Made here, wherever it is to run.
  const request = { reference, arch: here.arch, pull, machine, tools: here.tools, signal }
  const { progress, done } = showImageProgress(json === true)
  const image = await ensureImage({ ...request, progress }).finally(done)
  const { digest, config, passwd, group } = image
  const container = { reference: image.reference, digest, config, passwd, group, privileged }
  checkFirst(container, program)
  const { host } = await whereTo(own.context, on)
  return { container, squashfs: await imageOn(own, here, image, host) }
}

async function printPlan(bundle: Bundle, planned: Planned, request: RunRequest, json: boolean): Promise<number> {
  const { engineStarts } = await import('../stack/run.ts')
  const { quote } = await import('../machine/quote.ts')
  const starts = await engineStarts(bundle, planned, request)
  const levels = planned.levels.map((plan, index) => {
    const { command = [], requests = [] } = starts[index] ?? {}
    return { ...plan, engineCommand: command, ...(requests.length > 0 && { engineRequests: requests }) }
  })
  if (json) printJson({ levels })
  else {
    for (const level of levels) {
      const { path, accel, accelReason, cpus, memoryMiB, nested, limitMs } = level
      const { cpuModel, engineCommand, engineRequests = [] } = level
      console.log(`L${level.level}  ${path}  ${accel} (${accelReason})`)
      console.log(
        `    ${cpus} CPU, ${memoryMiB} MiB${nested ? ', a hypervisor' : ''}, at most ${limitMs / 1000} s to start`,
      )
      if (cpuModel) console.log(`    processor ${cpuModel}`)
      console.log(`    ${engineCommand.map(quote).join(' ')}`)
      for (const { method, path, body } of engineRequests) console.log(`    ${method} ${path} ${JSON.stringify(body)}`)
    }
  }
  return 0
}

async function detach(
  { context }: Session,
  started: StartedGuest[],
  options: RunOptions,
  program: Program | undefined,
): Promise<number> {
  const { runFirstDetached } = await import('../stack/inside.ts')
  const { release } = await import('../stack/start.ts')
  const innermost = started.at(-1)
  if (!innermost) return 0
  if (program) await runFirstDetached(innermost.machine, innermost.record, program)
  for (const { record } of started) await release(record)
  if (options.json) printJson({ machine: innermost.record.path, levels: started.map(({ record }) => summary(record)) })
  else console.log(innermost.record.path)
  await context[Symbol.asyncDispose]()
  return 0
}

async function foreground(
  own: Session,
  started: StartedGuest[],
  options: RunOptions,
  wanted: Program,
  renew: () => Promise<void>,
): Promise<number> {
  const { runFirst } = await import('../stack/inside.ts')
  const { attach, windowSize } = await import('./attach.ts')
  const { destroy } = await import('../stack/stop.ts')
  const { unlessDead } = await import('../stack/watch.ts')
  const [outermost] = started
  const innermost = started.at(-1)
  if (!outermost || !innermost) return 0
  const work = async () => {
    const noInput = !options.interactive && !options.tty
    const tty = options.tty ? { ...windowSize(), term: process.env.TERM } : undefined
    const program = await runFirst(innermost.machine, innermost.record, wanted, { tty, noInput })
    // While the command runs; when it ends before, nobody else wants to get in.
    renew().catch(() => {})
    const streams = { interactive: options.interactive === true, tty: options.tty === true }
    if (!options.json) return attach(program, own, streams)
    const { collect } = await import('./collect.ts')
    const result = await collect(program, own, streams.interactive)
    printJson({ ...result, levels: started.map(({ record }) => summary(record)) })
    return result.exitStatus
  }
  try {
    const deaths = started.map((guest) => guest.died)
    return await unlessDead(own.context, innermost.record, deaths, work())
  } finally {
    await destroy(own.context, outermost.record)
  }
}

function timedOut(milliseconds: number): NestvmError {
  return new NestvmError('TIMEOUT', `stopped after ${milliseconds / 1000} s, as --timeout says`, { exitStatus: 124 })
}

function summary({ level, path, accel, accelReason, cpus, memoryMiB }: StartedGuest['record']) {
  return { level, machine: path, accel, accelReason, cpus, memoryMiB }
}
