import { Command } from 'commander'
import { version } from '../store/version.ts'
import { benchCommand } from './bench.ts'
import { cloneCommand } from './clone.ts'
import { completionCommand } from './completion.ts'
import { consoleCommand } from './console.ts'
import { cpCommand } from './cp.ts'
import { doctorCommand } from './doctor.ts'
import { enableCommand } from './enable.ts'
import { execCommand, shellCommand } from './exec.ts'
import { imageCommand } from './image.ts'
import { inspectCommand } from './inspect.ts'
import { kernelCommand } from './kernel.ts'
import { logsCommand } from './logs.ts'
import { lsCommand } from './ls.ts'
import { migrateCommand } from './migrate.ts'
import { pruneCommand, rmCommand, stopCommand } from './remove.ts'
import { reportCommand } from './report.ts'
import { runCommand } from './run.ts'
import { setupCommand } from './setup.ts'
import { snapshotCommand } from './snapshot.ts'
import { sshConfigCommand, sshProxyCommand } from './ssh-config.ts'
import { volumeServerCommand } from './volume-server.ts'

/** The whole command line; parsing it runs the command that it names. */
export function createProgram(): Command {
  const program = new Command('nestvm')
    .description('Runs commands in virtual machines, inside virtual machines, to any depth.')
    .version(version)
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .configureHelp({ sortOptions: false })
  for (const command of commands(program)) program.addCommand(command)
  program.addCommand(sshProxyCommand(), { hidden: true })
  program.addCommand(volumeServerCommand(), { hidden: true })
  exitsWithUsageStatus(program)
  return program
}

const commands = (program: Command) => [
  runCommand(),
  execCommand(),
  shellCommand(),
  cpCommand(),
  logsCommand(),
  consoleCommand(),
  lsCommand(),
  inspectCommand(),
  stopCommand(),
  rmCommand(),
  pruneCommand(),
  imageCommand(),
  snapshotCommand(),
  cloneCommand(),
  migrateCommand(),
  setupCommand(),
  kernelCommand(),
  doctorCommand(),
  enableCommand(),
  reportCommand(),
  benchCommand(),
  sshConfigCommand(),
  completionCommand(program),
]

/** Commander's own status for bad usage is 1, which a guest's command may have too. It is set for each command. */
function exitsWithUsageStatus(command: Command): void {
  command.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  for (const inner of command.commands) exitsWithUsageStatus(inner)
}
