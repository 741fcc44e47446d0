from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('records', '0003_check_purges'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditentry',
            name='action',
            field=models.CharField(choices=[('create', 'create'), ('update', 'update'), ('delete', 'delete'), ('restore', 'restore'), ('purge', 'purge'), ('undo', 'undo'), ('register', 'register'), ('login', 'login'), ('logout', 'logout'), ('password_change', 'password_change'), ('password_reset', 'password_reset'), ('email_verify', 'email_verify'), ('deletion_request', 'deletion_request'), ('deletion_confirm', 'deletion_confirm'), ('deletion_cancel', 'deletion_cancel'), ('oauth_login', 'oauth_login'), ('view', 'view')], help_text='The action.', max_length=20),
        ),
        migrations.AlterField(
            model_name='auditentry',
            name='at',
            field=models.DateTimeField(help_text='Time of the action.'),
        ),
        migrations.AlterField(
            model_name='auditentry',
            name='ip',
            field=models.GenericIPAddressField(help_text='Address of the client; null for commands.', null=True, verbose_name='IP address'),
        ),
        migrations.AlterField(
            model_name='auditentry',
            name='object_type',
            field=models.CharField(help_text='Table of the row: `users`, `stocks`, …', max_length=63),
        ),
        migrations.AlterField(
            model_name='auditentry',
            name='outcome',
            field=models.CharField(choices=[('success', 'Success'), ('failure', 'Failure')], help_text='Result of the action.', max_length=7),
        ),
        migrations.AlterField(
            model_name='auditentry',
            name='owner_id',
            field=models.BigIntegerField(help_text='Id of the user who owns the row.', null=True),
        ),
        migrations.AlterField(
            model_name='auditentry',
            name='request_id',
            field=models.CharField(help_text="`X-Request-ID` of the response, or the id of the command's run.", max_length=64, null=True),
        ),
        migrations.AlterField(
            model_name='auditentry',
            name='user_id',
            field=models.BigIntegerField(help_text='Id of the user who acted, or whose login failed; null for commands and unknown users.', null=True),
        ),
    ]
