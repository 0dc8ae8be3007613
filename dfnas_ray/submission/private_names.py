"""File names of passwords, keys and tokens. Hidden files are not listed: another rule refuses them."""

from __future__ import annotations

import re

_NAMES = """
*.env *.env.* env.local *.envrc *netrc *git-credentials *npmrc *pypirc pip.conf pip.ini nuget.config sftp-config.json
*credential* *secret* *password* *passwd* *passphrase* *vault*.yml *vault*.yaml *vault?pass* *.vault *htpasswd *htdigest
*token *tokens *token.txt *tokens.txt *token.json *tokens.json *access?token* *accesstoken* *auth?token* *api?key* *apikey*
auth.json key.json *?key.json keys.json key.txt keys.txt kaggle.json *service?account*.json *serviceaccount*.json
*adminsdk*.json *?adc.json gcloud *.publishsettings azureprofile.json msal_token_cache* *boto *boto.cfg *s3cfg s3cmd.ini
*rclone*.conf aws/config *.pem *.key *.p8 *.p12 *.pfx *.pk8 *.ppk *.jks *.jceks *.keystore *.bks *.gpg *.pgp *.asc *.kdb
*.kdbx *.keychain* *.agekey *.keytab *.ovpn *.rdp *id_rsa* *id_dsa* *id_ecdsa* *id_ed25519* *_rsa *_dsa *_ecdsa *_ed25519
identity ssh_host_* ssh/config dot_ssh *private?key* *privatekey* secring.* gnupg krb5cc_* wallet.dat *.wallet *kubeconfig*
kube/config docker/config.json *dockercfg *dockerconfig* gh/hosts.yml *.tfstate *.tfstate.* *.tfvars *.tfvars.* *.tfrc
*terraformrc terraform.rc *pgpass* *my.cnf *mylogin.cnf database.yml *odbc.ini *databrickscfg connections.toml profiles.yml
*openrc.sh clouds.yaml local_settings.py wp-config.php settings.xml gradle.properties filezilla.xml sitemanager.xml
recentservers.xml winscp.ini ngrok.yml logins.json key3.db key4.db *cookies*.txt cookies.sqlite wandb/settings
"""
_ANY = "|".join(re.escape(name).replace(r"\*", "[^/]*").replace(r"\?", "[^/]") for name in _NAMES.split())

CREDENTIALS = re.compile(f"(^|/)({_ANY})(/|$)", re.IGNORECASE)
"""Matches the path of such a file, and of every file in a folder with such a name."""
